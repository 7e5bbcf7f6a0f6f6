-- What to order, from what the receiver has imported: the work of the app behind it, reduced to a reorder point.
--
-- An item is ordered where stock, less what is reserved and owed to customers, plus what is on order, falls below the
-- demand of the supplier's lead time and two weeks more. Decimals are kept as exact text; here a float is exact enough.
WITH
-- The app counts its days from the newest sale, so that the sample recommends the same whenever it runs.
today(day) AS (SELECT max(sale_date) FROM sales),
demand(item_id, per_day) AS (
    SELECT item_id, sum(CAST(quantity AS REAL)) / 90.0
    FROM sales, today
    WHERE sale_date > date(day, '-90 days') AND sale_date <= day
    GROUP BY item_id
),
on_hand(item_id, quantity) AS (
    SELECT item_id, sum(CAST(quantity AS REAL) - coalesce(CAST(reserved AS REAL), 0)) FROM stock GROUP BY item_id
),
on_order(item_id, quantity) AS (
    SELECT item_id, sum(CAST(quantity AS REAL)) FROM purchase_orders, today WHERE expected_on >= day GROUP BY item_id
),
backlog(item_id, quantity) AS (
    SELECT item_id, sum(CAST(ordered AS REAL) - CAST(delivered AS REAL)) FROM sales_orders GROUP BY item_id
),
supplier AS (
    SELECT item_id, supplier_id, coalesce(lead_time_days, 14) AS lead_time, CAST(min_order AS REAL) AS min_order, purchase_price,
        row_number() OVER (PARTITION BY item_id ORDER BY preferred DESC, CAST(purchase_price AS REAL), supplier_id) AS rank
    FROM supplier_items JOIN suppliers USING (supplier_id)
    WHERE NOT blocked
),
position AS (
    SELECT i.item_id, i.item_no, s.supplier_id, s.purchase_price, s.min_order, d.per_day,
        -- Demand while the supplier delivers, and that of two weeks for safety.
        d.per_day * (s.lead_time + 14) AS reorder_point,
        coalesce(h.quantity, 0) + coalesce(o.quantity, 0) - coalesce(b.quantity, 0) AS available
    FROM items i
    JOIN demand d USING (item_id)
    JOIN supplier s ON s.item_id = i.item_id AND s.rank = 1
    LEFT JOIN on_hand h ON h.item_id = i.item_id
    LEFT JOIN on_order o ON o.item_id = i.item_id
    LEFT JOIN backlog b ON b.item_id = i.item_id
    WHERE i.active AND d.per_day > 0
)
SELECT supplier_id, item_id, item_no,
    -- Up to the reorder point and for a month more, at least what the supplier delivers, in whole units.
    CAST(max(reorder_point + per_day * 30 - available, min_order) + 0.999 AS INTEGER) AS quantity,
    purchase_price,
    printf('%.3f', available) AS available,
    printf('%.3f', reorder_point) AS reorder_point,
    day AS computed_for
FROM position, today
WHERE available < reorder_point
ORDER BY supplier_id, item_no;
