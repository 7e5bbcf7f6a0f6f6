"""Makes a Tryton database with Tryton's own programs, and says what Tryton itself says of it.

    python tryton.py DATABASE EXPECTED.json       the server is TRYTOND_DATABASE__URI, which ends with a slash; the database is empty

Everything is entered through proteus, the client library, as a person would through the client: no row is written past Tryton's
own checks. What is expected comes from Tryton's models (quantities in stock, conversions of units, dates, open moves), never from
SQL. Numbers are written as text, so that nothing is lost on the way to who compares.
"""

import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import distributions
from math import ceil
from pathlib import Path

from proteus import Model, Wizard, config as proteus_config
from sql import Table
from trytond import backend
from trytond.pool import Pool
from trytond.transaction import Transaction

MODULES = ["sale", "purchase", "stock_supply", "production"]
TODAY = datetime.date.today()
DAY = datetime.timedelta(days=1)
COMPANY_CURRENCY = "EUR"


def activate():
    """What `trytond-admin --all --update …` does, without its questions for a password: nobody logs in here.

    It takes a minute of computing and has always the same outcome, so that is kept beside the modules as a dump, as Tryton's own tests
    do it."""
    kept = kept_dump()
    if kept.exists():
        run("psql", "--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1", f"--file={kept}")
        return
    database = backend.Database(DATABASE)
    connection = database.get_connection()
    try:
        database.init()
        with connection.cursor() as cursor:
            settings = Table("ir_configuration")
            cursor.execute(*settings.insert([settings.language], [["en"]]))
        connection.commit()
    finally:
        database.put_connection(connection)
    pool = Pool(DATABASE)
    pool.init(update=["ir", "res", *MODULES], activatedeps=True, lang=["en"])
    with Transaction().start(DATABASE, 0):
        pool.get("res.user").create([{"login": "admin", "name": "Administrator", "administrator": True}])
    part = kept.with_suffix(f".{os.getpid()}")
    run("pg_dump", "--no-owner", "--no-privileges", f"--file={part}")
    part.replace(kept)


def kept_dump():
    """Where the database of these versions is kept, as it is before a company works with it."""
    versions = sorted(f"{one.name}={one.version}" for one in distributions() if one.name.lower().startswith("trytond"))
    digest = hashlib.sha256("\n".join(versions + MODULES).encode()).hexdigest()
    return Path(sys.prefix) / f"tryton-{digest[:16]}.sql"


def run(program, *arguments):
    """Runs one of PostgreSQL's own programs, where Debian keeps those of every version."""
    folders = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(program, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))
    address = os.environ["TRYTOND_DATABASE__URI"] + DATABASE
    subprocess.run([found or program, *arguments, f"--dbname={address}"], check=True)


def get(name):
    return Model.get(name)


def saved(record):
    record.save()
    return record


def currency(code, symbol, rate):
    Currency, Rate = get("currency.currency"), get("currency.currency.rate")
    record = saved(Currency(name=code, symbol=symbol, code=code, rounding=Decimal("0.01"), digits=2))
    saved(Rate(date=TODAY - 400 * DAY, rate=Decimal(rate), currency=record))
    return record


def company(name, money):
    wizard = Wizard("company.company.config")
    wizard.execute("company")
    wizard.form.party = saved(get("party.party")(name=name))
    wizard.form.currency = money
    wizard.execute("add")
    proteus_config.get_config()._context = get("res.user").get_preferences(True, {})


def warehouse(name, code):
    """A warehouse with the places below it, which must not be the same."""
    Location = get("stock.location")
    parts = {part: saved(Location(name=f"{name} {part}", type="storage")) for part in ["input", "output", "storage"]}
    parts["production"] = saved(Location(name=f"{name} production", type="production"))
    record = Location(name=name, code=code, type="warehouse")
    for part, place in parts.items():
        setattr(record, f"{part}_location", place)
    record.lost_found_location, = Location.find([("type", "=", "lost_found")], limit=1)
    return saved(record), parts


def uom(name):
    record, = get("product.uom").find([("name", "=", name)])
    return record


def product(name, unit, code=None, **more):
    """One template with one product; a code that is absent is one that nobody has given."""
    template = get("product.template")()
    template.name = name
    template.default_uom = unit
    template.type = more.pop("kind", "goods")
    template.list_price = Decimal(more.pop("list_price", "10"))
    cost = more.pop("cost", "0")
    template.categories.extend(more.pop("categories", []))
    for field, value in more.items():
        setattr(template, field, value)
    template.save()
    record, = template.products
    record.suffix_code = code
    record.cost_price = Decimal(cost)
    record.save()
    return record


def sell(customer, lines, day, warehouse, money=None, process=True):
    sale = get("sale.sale")()
    sale.party = customer
    sale.invoice_method = "manual"
    sale.sale_date = day
    sale.warehouse = warehouse
    if money:
        sale.currency = money
    for item, quantity, unit, price in lines:
        line = sale.lines.new()
        line.product = item
        line.unit = unit
        line.quantity = quantity
        line.unit_price = Decimal(price)
    line = sale.lines.new()
    line.type = "comment"
    line.description = "no goods: \"said\", with a comma"
    sale.save()
    if process:
        sale.click("quote")
        sale.click("confirm")
        sale.reload()
    return sale


def ship(sale, day, short=None):
    """Sends what a sale has; of the first move only `short`, where it is given."""
    for shipment in sale.shipments:
        if shipment.state == "done":
            continue
        shipment.effective_date = day
        shipment.save()
        if shipment.warehouse_storage != shipment.warehouse_output:
            if short is not None:
                move = shipment.inventory_moves[0]
                move.quantity = short
                move.save()
            shipment.click("assign_force")
            shipment.click("pick")
        shipment.click("pack")
        shipment.click("do")
    sale.reload()


def buy(supplier, lines, day, warehouse, due=None, money=None, process=True):
    purchase = get("purchase.purchase")()
    purchase.warehouse = warehouse
    purchase.party = supplier
    purchase.invoice_method = "manual"
    purchase.purchase_date = day
    if due:
        purchase.delivery_date = due
    if money:
        purchase.currency = money
    for item, quantity, unit, price in lines:
        line = purchase.lines.new()
        line.product = item
        line.unit = unit
        line.quantity = quantity
        line.unit_price = Decimal(price)
    purchase.save()
    if process:
        purchase.click("quote")
        purchase.click("confirm")
        purchase.reload()
    return purchase


def make():
    euro, dollar = currency("EUR", "€", "1"), currency("USD", "$", "1.25")
    company("Werkzeug & Söhne GmbH", euro)
    Location, Party = get("stock.location"), get("party.party")
    main, = Location.find([("type", "=", "warehouse")])
    main.code = "MAIN"
    main.save()
    # A second warehouse, with a rack of its own below its storage: stock is counted over the whole tree.
    south, parts = warehouse("Lager Süd", "SÜD")
    rack = saved(Location(name="Rack 7", type="storage", parent=Location(parts["storage"].id)))
    old, _ = warehouse("Altlager", None)
    old.active = False
    old.save()
    supplier = saved(Party(name="Schrauben-Müller, Inh. \"M. Müller\"", code="S-1"))
    address = supplier.addresses[0] if supplier.addresses else supplier.addresses.new()
    country = saved(get("country.country")(name="Austria", code="AT", code3="AUT", code_numeric="040"))
    address.country = country
    address.city = "Wien"
    supplier.save()
    other = saved(Party(name="Import Ltd."))
    customer, dealer = saved(Party(name="Kunde")), saved(Party(name="Händler"))
    unit, kilogram, gram, metre = uom("Unit"), uom("Kilogram"), uom("Gram"), uom("Meter")
    dozen = get("product.uom")(name="Dozen", symbol="dz", category=unit.category, factor=12.0, rate=round(1 / 12, 12))
    dozen.rounding, dozen.digits = 1.0, 0
    dozen.save()
    category = saved(get("product.category")(name="Befestigung"))
    bought = {"purchasable": True, "salable": True, "purchase_uom": unit, "sale_uom": unit}
    screw = product("Schraube M4×20 \"TX\"", unit, "M4-20", cost="0.0312", list_price="0.0799", categories=[category], **bought)
    powder = product("Pulver", kilogram, "P;1", cost="12.3456", purchasable=True, salable=True, purchase_uom=kilogram, sale_uom=gram)
    cable = product("Kabel", metre, None, cost="1.1", purchasable=True, salable=True, purchase_uom=metre, sale_uom=metre)
    kit = product("Bausatz", unit, "KIT", cost="3", salable=True, sale_uom=unit, producible=True)
    product("Beratung", uom("Hour"), "SERVICE", kind="service", salable=True, sale_uom=uom("Hour"))
    gone = product("Ausgelaufen", unit, "OLD", **bought)
    gone.template.active = False
    gone.template.save()
    Source = get("purchase.product_supplier")
    saved(Source(template=screw.template, party=supplier, currency=euro, lead_time=datetime.timedelta(days=14), sequence=2))
    saved(Source(product=screw, template=screw.template, party=other, currency=dollar, lead_time=datetime.timedelta(days=45, hours=12), sequence=1))
    saved(Source(template=powder.template, party=other, currency=dollar))
    bom = get("production.bom")(name="Bausatz")
    for item, quantity, measure in [(screw, 2.0, dozen), (powder, 12.5, gram), (cable, 0.75, metre)]:
        line = bom.inputs.new()
        line.product, line.unit, line.quantity = item, measure, quantity
    line = bom.outputs.new()
    line.product, line.unit, line.quantity = kit, unit, 5.0
    bom.save()
    kit.boms.append(get("product.product-production.bom")(bom=bom))
    kit.save()
    counted(main.storage_location, {screw: 1000, powder: 12.25, cable: 100.1, kit: 4})
    counted(rack, {screw: 144, powder: 0.01})
    history(locals())


def counted(location, quantities):
    inventory = get("stock.inventory")(location=get("stock.location")(location.id), date=TODAY - 100 * DAY)
    for item, quantity in quantities.items():
        line = inventory.lines.new(product=item)
        line.quantity = float(quantity)
    inventory.save()
    inventory.click("confirm")


def history(of):
    """Sales of a quarter, deliveries in part, returns, cancelled and open orders."""
    screw, powder, cable, kit, unit, gram, metre = (of[name] for name in "screw powder cable kit unit gram metre".split())
    customer, dealer, supplier, other, dozen, dollar = (of[name] for name in "customer dealer supplier other dozen dollar".split())
    main, south = of["main"], of["south"]
    ship(sell(customer, [(screw, 3.0, dozen, "0.96"), (powder, 333.0, gram, "0.0321")], TODAY - 90 * DAY, main), TODAY - 89 * DAY)
    ship(sell(dealer, [(cable, 0.1, metre, "2.3456")], TODAY - 30 * DAY, main, money=dollar), TODAY - 30 * DAY)
    ship(sell(dealer, [(screw, 24.0, unit, "0.0799")], TODAY - 8 * DAY, south), TODAY - 7 * DAY)
    # What comes back is a sale of less than nothing.
    back = sell(customer, [(screw, -1.0, dozen, "0.96")], TODAY - 20 * DAY, main)
    for shipment in back.shipment_returns:
        shipment.effective_date = TODAY - 19 * DAY
        shipment.save()
        shipment.click("receive")
        shipment.click("do")
    part = sell(customer, [(screw, 10.0, dozen, "0.90"), (kit, 3.0, unit, "19.9")], TODAY - 5 * DAY, main)
    ship(part, TODAY - 4 * DAY, short=4.0)
    sell(dealer, [(cable, 25.35, metre, "2.05"), (powder, 500.0, gram, "0.03")], TODAY - DAY, south)
    sell(customer, [(kit, 1.0, unit, "20")], TODAY, main, process=False)
    sell(customer, [(kit, 2.0, unit, "20")], TODAY, main, process=False).click("cancel")
    lines = [(screw, 500.0, unit, "0.031"), (screw, 10.0, dozen, "0.35")]
    bought = buy(supplier, lines, TODAY - 60 * DAY, main, due=TODAY - 40 * DAY)
    receive(bought, min(bought.moves, key=lambda move: move.id), 200.0, TODAY - 41 * DAY)
    lines = [(powder, 2.5, of["kilogram"], "11.2345"), (cable, 300.0, metre, "0.9")]
    ordered = buy(other, lines, TODAY - 10 * DAY, south, money=dollar)
    # Nobody has decided yet whether what was cancelled shall be made anew: it does not come.
    move, = [move for move in ordered.moves if move.product == cable]
    get("stock.move")(move.id).click("cancel")
    buy(supplier, [(screw, 7.0, unit, "0.03")], TODAY, main, process=False)


def receive(purchase, move, quantity, day):
    """Takes in a part of one move of a purchase."""
    shipment = get("stock.shipment.in")()
    shipment.supplier = purchase.party
    shipment.warehouse = purchase.warehouse
    shipment.effective_date = day
    shipment.save()
    move = get("stock.move")(move.id)
    shipment.incoming_moves.append(move)
    shipment.save()
    move = shipment.incoming_moves[0]
    move.quantity = quantity
    move.save()
    shipment.reload()
    shipment.click("receive")
    shipment.click("do")
    purchase.reload()


def expected():
    """Every table of the planning data contract, as Tryton's own models have it."""
    with Transaction().start(DATABASE, 0, readonly=True) as transaction:
        pool = Pool()
        company, = pool.get("company.company").search([])
        with transaction.set_context(company=company.id, active_test=False):
            return {name: [row for row in rows(pool) if row] for name, rows in TABLES.items()}


def number(value):
    """Ten places are what the profile sends; Tryton computes with floats, which hold more digits than are meant."""
    if value is None:
        return None
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    return format(exact.quantize(Decimal("1e-10"), ROUND_HALF_UP).normalize(), "f")


def text(value):
    return None if value in (None, "") else str(value)


def day(value):
    return value.isoformat() if value else None


def moment(*records):
    at = max(record.write_date or record.create_date for record in records)
    return at.isoformat().rstrip("0") if at.microsecond else at.isoformat()


def goods(pool):
    return pool.get("product.product").search([("type", "in", ["goods", "assets"])])


def items(pool):
    for product in goods(pool):
        suppliers = list(product.product_suppliers_used()) if product.purchasable else []
        lead_time = suppliers[0].lead_time_used if suppliers else None
        yield {
            "item_id": str(product.id),
            "item_no": text(product.code),
            "name": product.template.name,
            "unit": product.default_uom.symbol,
            "active": product.active and product.template.active,
            "category": min((category.name for category in product.template.categories), default=None),
            "purchased": bool(product.purchasable),
            "produced": bool(product.producible),
            "supplier_id": str(suppliers[0].party.id) if suppliers else None,
            "lead_time_days": ceil(lead_time.total_seconds() / 86400) if lead_time is not None else None,
            "unit_cost": number(product.cost_price),
            "changed_at": moment(product, product.template),
        }


def locations(pool):
    for place in pool.get("stock.location").search([("type", "=", "warehouse")]):
        yield {"location_id": str(place.id), "code": text(place.code), "name": place.name, "active": place.active}


def suppliers(pool):
    sources = pool.get("purchase.product_supplier").search([])
    purchases = pool.get("purchase.purchase").search([])
    for party in {record.party for record in list(sources) + list(purchases)}:
        address = party.addresses[0] if party.addresses else None
        yield {
            "supplier_id": str(party.id),
            "supplier_no": text(party.code),
            "name": text(party.name),
            "country": address.country.code if address and address.country else None,
            "active": party.active,
        }


def stock_on_hand(pool):
    places = pool.get("stock.location").search([("type", "=", "warehouse")])
    moved = {move.product.id for move in pool.get("stock.move").search([("state", "=", "done")])}
    for place in places:
        with Transaction().set_context(locations=[place.id], stock_date_end=pool.get("ir.date").today()):
            for product in pool.get("product.product").browse(sorted(moved)):
                # Tryton does not tell "none" from "never any", and neither does the contract.
                if product.quantity:
                    yield {"item_id": str(product.id), "location_id": str(place.id), "quantity": number(product.quantity)}


def sales_history(pool):
    for move in pool.get("stock.move").search([("state", "=", "done")]):
        out, back = move.to_location.type == "customer", move.from_location.type == "customer"
        if out == back:
            continue
        sign, place = (1, move.from_location) if out else (-1, move.to_location)
        sale = move.origin.sale if move.origin and move.origin.__name__ == "sale.line" else None
        customer = sale.party if sale else getattr(move.shipment, "customer", None)
        price = move.unit_price
        yield {
            "entry_id": str(move.id),
            "item_id": str(move.product.id),
            "location_id": str(place.warehouse.id) if place.warehouse else None,
            "sold_on": day(move.effective_date),
            "quantity": number(sign * move.internal_quantity),
            "net_amount": number(sign * Decimal(str(move.quantity)) * price) if price is not None else None,
            "currency": move.currency.code if move.currency else None,
            "customer_id": str(customer.id) if customer else None,
            "changed_at": moment(move),
        }


def open_lines(pool, model, order, party, ordered_on, promised):
    Uom = pool.get("product.uom")
    for line in pool.get(model).search([("type", "=", "line"), ("product.type", "in", ["goods", "assets"])]):
        document = getattr(line, order)
        if document.state not in ("confirmed", "processing"):
            continue
        unit = line.product.default_uom
        ordered = Uom.compute_qty(line.unit, line.quantity, unit, round=False)
        settled = [move for move in line.moves if move.state in ("done", "cancelled") and move not in line.moves_recreated]
        coming = [move.planned_date for move in line.moves if move.state not in ("done", "cancelled") and move.planned_date]
        rest = ordered - sum(Uom.compute_qty(move.unit, move.quantity, unit, round=False) for move in settled)
        if Decimal(number(rest)) <= 0:
            continue
        yield {
            "line_id": str(line.id),
            "order_no": text(document.number),
            party: str(document.party.id),
            "item_id": str(line.product.id),
            "location_id": str(document.warehouse.id) if document.warehouse else None,
            "ordered_on": day(getattr(document, ordered_on)),
            "due_on": day(min(coming) if coming else promised(line, document)),
            "quantity": number(rest),
            "quantity_ordered": number(ordered),
            "net_amount": number(Decimal(str(line.quantity)) * line.unit_price),
            "currency": document.currency.code,
        }


def open_purchase_orders(pool):
    def promised(line, purchase):
        return line.delivery_date_store if line.delivery_date_edit and line.delivery_date_store else purchase.delivery_date

    return open_lines(pool, "purchase.line", "purchase", "supplier_id", "purchase_date", promised)


def open_sales_orders(pool):
    return open_lines(pool, "sale.line", "sale", "customer_id", "sale_date", lambda line, sale: sale.shipping_date)


def bills_of_material(pool):
    Uom = pool.get("product.uom")
    for product in goods(pool):
        bill = product.get_bom()
        if not bill:
            continue
        for output in bill.bom.outputs:
            for line in bill.bom.inputs:
                if output.product != product or not line.product:
                    continue
                yield {
                    "line_id": f"{line.id}-{output.id}",
                    "item_id": str(product.id),
                    "batch_quantity": number(Uom.compute_qty(output.unit, output.quantity, product.default_uom, round=False)),
                    "component_id": str(line.product.id),
                    "quantity": number(Uom.compute_qty(line.unit, line.quantity, line.product.default_uom, round=False)),
                }


TABLES = {
    "items": items,
    "locations": locations,
    "suppliers": suppliers,
    "stock_on_hand": stock_on_hand,
    "sales_history": sales_history,
    "open_purchase_orders": open_purchase_orders,
    "open_sales_orders": open_sales_orders,
    "bills_of_material": bills_of_material,
}


if __name__ == "__main__":
    DATABASE, file = sys.argv[1:]
    Pool.start()
    activate()
    Pool(DATABASE).init()
    proteus_config.set_trytond(database=DATABASE, user="admin")
    make()
    with open(file, "w", encoding="utf-8") as out:
        json.dump(expected(), out, indent=1)
