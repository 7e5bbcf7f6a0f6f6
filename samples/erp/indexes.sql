-- Made after the load, which is several times faster than keeping them up to date row by row.
CREATE INDEX sales_by_date ON sales (sale_date);
CREATE INDEX item_prices_by_item ON item_prices (item_id, price_list, valid_to);
CREATE INDEX stock_by_item ON stock (item_id, warehouse_id);
