-- The sample ERP of a wholesaler, as a small vendor would ship it on SQLite.
--
-- Things a reader of this schema has to know:
--   * DECIMAL columns have NUMERIC affinity: SQLite keeps 12.50 as the REAL 12.5 and 12.00 as the INTEGER 12. Every value
--     has at most 15 significant digits, so the declared scale gives the exact decimal back.
--   * bill_of_material.exact_factor holds more digits than a REAL can. It is declared VARCHAR so that the text stays as it
--     is; an extract profile declares it DECIMAL(30,10).
--   * erp_notes."order" has no declared type at all; an extract profile declares it TEXT.
--   * Dates and timestamps are ISO text without zone. 9999-12-31 means "without end", 1899-12-30 is the empty date of an
--     old client, and some dates are older than any calendar library likes.

CREATE TABLE company (
    company_id   INTEGER      NOT NULL PRIMARY KEY,
    name         VARCHAR(80)  NOT NULL,
    founded      DATE         NOT NULL,
    currency     CHAR(3)      NOT NULL,
    credit_frame DECIMAL(15,2)
);

CREATE TABLE items (
    item_id         INTEGER      NOT NULL PRIMARY KEY,
    item_no         VARCHAR(20)  NOT NULL UNIQUE,
    name            VARCHAR(120) NOT NULL,
    name_2          VARCHAR(60),
    description     TEXT,
    unit            CHAR(3)      NOT NULL,
    ean             BIGINT,
    category        SMALLINT     NOT NULL,
    weight_kg       DOUBLE,
    pack_size       DECIMAL(9,3),
    cost_price      DECIMAL(12,4),
    active          BOOLEAN      NOT NULL DEFAULT 1,
    introduced_on   DATE,
    discontinued_on DATE,
    created_at      TIMESTAMP    NOT NULL,
    picture         BLOB
);

CREATE TABLE item_prices (
    price_id     INTEGER       NOT NULL PRIMARY KEY,
    item_id      INTEGER       NOT NULL REFERENCES items (item_id),
    price_list   VARCHAR(10)   NOT NULL,
    min_quantity DECIMAL(12,3) NOT NULL DEFAULT 0,
    price        DECIMAL(12,4) NOT NULL,
    valid_from   DATE          NOT NULL,
    valid_to     DATE          NOT NULL DEFAULT '9999-12-31'
);

CREATE TABLE warehouses (
    warehouse_id INTEGER     NOT NULL PRIMARY KEY,
    code         VARCHAR(8)  NOT NULL UNIQUE,
    name         VARCHAR(60) NOT NULL,
    latitude     DOUBLE      NOT NULL,
    longitude    DOUBLE      NOT NULL,
    opens_at     TIME,
    closed       BOOLEAN     NOT NULL DEFAULT 0
);

CREATE TABLE stock (
    stock_id     INTEGER       NOT NULL PRIMARY KEY,
    item_id      INTEGER       NOT NULL REFERENCES items (item_id),
    warehouse_id INTEGER       NOT NULL REFERENCES warehouses (warehouse_id),
    bin          VARCHAR(20),
    quantity     DECIMAL(12,3) NOT NULL,
    reserved     DECIMAL(12,3),
    counted_on   DATE,
    changed_at   TIMESTAMP     NOT NULL
);

CREATE TABLE suppliers (
    supplier_id INTEGER      NOT NULL PRIMARY KEY,
    name        VARCHAR(80)  NOT NULL,
    city        VARCHAR(60),
    country     CHAR(2)      NOT NULL,
    terms       VARCHAR(200),
    since       DATE,
    blocked     BOOLEAN      NOT NULL DEFAULT 0
);

CREATE TABLE supplier_items (
    supplier_id    INTEGER       NOT NULL REFERENCES suppliers (supplier_id),
    item_id        INTEGER       NOT NULL REFERENCES items (item_id),
    supplier_no    VARCHAR(30)   NOT NULL,
    lead_time_days SMALLINT,
    min_order      DECIMAL(12,3) NOT NULL DEFAULT 1,
    purchase_price DECIMAL(12,4) NOT NULL,
    preferred      BOOLEAN       NOT NULL DEFAULT 0,
    PRIMARY KEY (item_id, supplier_id)
);

CREATE TABLE customers (
    customer_id  INTEGER       NOT NULL PRIMARY KEY,
    name         VARCHAR(80)   NOT NULL,
    street       VARCHAR(80),
    postcode     VARCHAR(10),
    city         VARCHAR(60)   NOT NULL,
    country      CHAR(2)       NOT NULL,
    credit_limit DECIMAL(14,2),
    discount     DECIMAL(5,2)  NOT NULL DEFAULT 0,
    since        DATE,
    blocked      BOOLEAN       NOT NULL DEFAULT 0
);

CREATE TABLE sales (
    sale_id          INTEGER       NOT NULL PRIMARY KEY,
    order_no         VARCHAR(20)   NOT NULL,
    line_no          SMALLINT      NOT NULL,
    sale_date        DATE          NOT NULL,
    customer_id      INTEGER       NOT NULL REFERENCES customers (customer_id),
    item_id          INTEGER       NOT NULL REFERENCES items (item_id),
    warehouse_id     INTEGER       NOT NULL REFERENCES warehouses (warehouse_id),
    quantity         DECIMAL(12,3) NOT NULL,
    unit_price       DECIMAL(12,4) NOT NULL,
    discount_percent DECIMAL(5,2),
    amount           DECIMAL(14,2) NOT NULL,
    unit_cost        DECIMAL(12,4),
    currency         CHAR(3)       NOT NULL,
    is_return        BOOLEAN       NOT NULL DEFAULT 0,
    booked_at        TIMESTAMP     NOT NULL,
    remark           VARCHAR(200)
);

CREATE TABLE sales_orders (
    order_no    VARCHAR(20)   NOT NULL,
    line_no     SMALLINT      NOT NULL,
    customer_id INTEGER       NOT NULL REFERENCES customers (customer_id),
    item_id     INTEGER       NOT NULL REFERENCES items (item_id),
    ordered     DECIMAL(12,3) NOT NULL,
    delivered   DECIMAL(12,3) NOT NULL DEFAULT 0,
    unit_price  DECIMAL(12,4) NOT NULL,
    due_on      DATE          NOT NULL,
    entered_at  DATETIME      NOT NULL,
    note        VARCHAR(200),
    PRIMARY KEY (order_no, line_no)
);

CREATE TABLE purchase_orders (
    purchase_id  INTEGER       NOT NULL PRIMARY KEY,
    supplier_id  INTEGER       NOT NULL REFERENCES suppliers (supplier_id),
    item_id      INTEGER       NOT NULL REFERENCES items (item_id),
    quantity     DECIMAL(12,3) NOT NULL,
    unit_price   DECIMAL(12,4),
    ordered_on   DATE          NOT NULL,
    expected_on  DATE,
    confirmed    BOOLEAN,
    note         TEXT
);

CREATE TABLE bill_of_material (
    parent_id    INTEGER       NOT NULL REFERENCES items (item_id),
    position     SMALLINT      NOT NULL,
    child_id     INTEGER       NOT NULL REFERENCES items (item_id),
    quantity     DECIMAL(12,3) NOT NULL,
    exact_factor VARCHAR(40),
    PRIMARY KEY (parent_id, position)
);

-- Bought with a module that nobody uses.
CREATE TABLE serial_numbers (
    serial_no   VARCHAR(40)   NOT NULL PRIMARY KEY,
    item_id     INTEGER       NOT NULL REFERENCES items (item_id),
    sold_on     DATE,
    deposit     DECIMAL(10,2)
);

-- Grown over the years by whoever needed a column.
CREATE TABLE erp_notes (
    "note id"         INTEGER     NOT NULL PRIMARY KEY,
    "Bearbeiter/in"   VARCHAR(40) NOT NULL,
    "order",
    "select"          NVARCHAR(200),
    "Größe (m²)"      NUMERIC(10,4),
    "Breite 19"""     DECIMAL(8,2),
    "Zähler"          BIGINT,
    "Messwert"        DOUBLE,
    "geändert am"     DATETIME,
    "Anlage"          BLOB
);

-- Where the vendor's purchasing module takes proposals from. Nothing of it is extracted.
CREATE TABLE recommended_orders (
    towpath_transfer VARCHAR(36)   NOT NULL,
    supplier_id      INTEGER       NOT NULL REFERENCES suppliers (supplier_id),
    item_id          INTEGER       NOT NULL REFERENCES items (item_id),
    item_no          VARCHAR(20)   NOT NULL,
    quantity         DECIMAL(12,3) NOT NULL,
    purchase_price   DECIMAL(12,4) NOT NULL,
    available        DECIMAL(12,3) NOT NULL,
    reorder_point    DECIMAL(12,3) NOT NULL,
    computed_for     DATE          NOT NULL,
    PRIMARY KEY (towpath_transfer, supplier_id, item_id)
);
