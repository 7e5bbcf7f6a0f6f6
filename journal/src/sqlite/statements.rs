//! The longer statements.

use crate::{
    prune::{Prune, Spent},
    record::Filter,
};

/// Due transfers of a stage and of the direction ?6, where it is one, in order of creation, but for those of the tenants and agents ?5,
/// a JSON array of `tenant` and `tenant/agent`. Two indexes serve the two sides of the `UNION`.
pub(super) const DUE: &str = "SELECT * FROM transfers WHERE stage = ?1 AND parked = 0 AND serial IN (
        SELECT serial FROM transfers
        WHERE stage = ?1 AND parked = 0 AND due <= ?2 AND (?6 IS NULL OR direction = ?6)
          AND tenant NOT IN (SELECT value FROM json_each(?5)) AND tenant || '/' || agent NOT IN (SELECT value FROM json_each(?5))
        UNION SELECT serial FROM transfers
        WHERE stage = ?1 AND parked = 0 AND since > ?3 AND (?6 IS NULL OR direction = ?6)
          AND tenant NOT IN (SELECT value FROM json_each(?5)) AND tenant || '/' || agent NOT IN (SELECT value FROM json_each(?5))
        ORDER BY 1 LIMIT ?4)
    ORDER BY serial";

/// The same, that which has been due for longest first. What a clock that was turned back has made due goes before everything.
pub(super) const LONGEST_DUE: &str = "SELECT * FROM transfers WHERE serial IN (
        SELECT serial FROM transfers
        WHERE stage = ?1 AND parked = 0 AND (due <= ?2 OR since > ?3) AND (?6 IS NULL OR direction = ?6)
          AND tenant NOT IN (SELECT value FROM json_each(?5)) AND tenant || '/' || agent NOT IN (SELECT value FROM json_each(?5))
        ORDER BY since <= ?3, due, serial LIMIT ?4)
    ORDER BY since <= ?3, due, serial";

const LIST: &str = "SELECT * FROM transfers
    WHERE serial < ?1
      AND (?2 IS NULL OR tenant = ?2) AND (?3 IS NULL OR agent = ?3) AND (?4 IS NULL OR direction = ?4)
      AND (?5 IS NULL OR job = ?5) AND (?6 IS NULL OR word = ?6) AND (?7 IS NULL OR stage = ?7)
      AND (?8 IS NULL OR parked = ?8) AND (?9 IS NULL OR ended = ?9) AND (?10 IS NULL OR sequence < ?10)
      AND (?12 IS NULL OR id = ?12)
    ORDER BY serial DESC LIMIT ?11";

/// The same of one state, of which there may be few among many: an index leads to these.
pub(super) const LIST_OF_STATE: &str = "SELECT * FROM transfers INDEXED BY transfers_alike
    WHERE word = ?6 AND serial < ?1
      AND (?2 IS NULL OR tenant = ?2) AND (?3 IS NULL OR agent = ?3) AND (?4 IS NULL OR direction = ?4)
      AND (?5 IS NULL OR job = ?5) AND (?7 IS NULL OR stage = ?7)
      AND (?8 IS NULL OR parked = ?8) AND (?9 IS NULL OR ended = ?9) AND (?10 IS NULL OR sequence < ?10)
      AND (?12 IS NULL OR id = ?12)
    ORDER BY serial DESC LIMIT ?11";

/// The same by its id, which is nearly always one.
const LIST_OF_ID: &str = "SELECT * FROM transfers INDEXED BY transfers_by_id
    WHERE id = ?12 AND serial < ?1
      AND (?2 IS NULL OR tenant = ?2) AND (?3 IS NULL OR agent = ?3) AND (?4 IS NULL OR direction = ?4)
      AND (?5 IS NULL OR job = ?5) AND (?6 IS NULL OR word = ?6) AND (?7 IS NULL OR stage = ?7)
      AND (?8 IS NULL OR parked = ?8) AND (?9 IS NULL OR ended = ?9) AND (?10 IS NULL OR sequence < ?10)
    ORDER BY serial DESC LIMIT ?11";

const OVER: &str = "SELECT * FROM transfers
    WHERE over = 1 AND changed < ?1 AND ?4 IS NULL AND serial NOT IN (SELECT value FROM json_each(?5))
      AND (?6 IS NULL OR direction = ?6)
      AND serial <= (SELECT serial FROM transfers
                     WHERE over = 1 AND (?6 IS NULL OR direction = ?6) ORDER BY serial DESC LIMIT 1 OFFSET ?2)
    ORDER BY serial LIMIT ?3";

const OVER_OF_TENANT: &str = "SELECT * FROM transfers INDEXED BY transfers_over_of_tenant
    WHERE over = 1 AND tenant = ?4 AND changed < ?1 AND serial NOT IN (SELECT value FROM json_each(?5))
      AND (?6 IS NULL OR direction = ?6)
      AND serial <= (SELECT serial FROM transfers INDEXED BY transfers_over_of_tenant
                     WHERE over = 1 AND tenant = ?4 AND (?6 IS NULL OR direction = ?6) ORDER BY serial DESC LIMIT 1 OFFSET ?2)
    ORDER BY serial LIMIT ?3";

const INCOMPLETE: &str = "SELECT * FROM transfers INDEXED BY transfers_alike
    WHERE word = 'incomplete' AND changed < ?1 AND (?4 IS NULL OR tenant = ?4) AND lease_token IS NULL
      AND serial NOT IN (SELECT value FROM json_each(?5)) AND (?6 IS NULL OR direction = ?6)
      AND serial <= (SELECT serial FROM transfers INDEXED BY transfers_alike
                     WHERE word = 'incomplete' AND (?4 IS NULL OR tenant = ?4) ORDER BY serial DESC LIMIT 1 OFFSET ?2)
    ORDER BY serial LIMIT ?3";

/// What is pruned: older than ?1, the newest ?2 stay, at most ?3, of the tenant ?4 and the direction ?6, and none of ?5.
pub(super) fn spent(what: &Prune) -> &'static str {
    match (what.spent, &what.tenant) {
        (Spent::Over, None) => OVER,
        (Spent::Over, Some(_)) => OVER_OF_TENANT,
        (Spent::Incomplete, _) => INCOMPLETE,
    }
}

/// The statement that finds what a filter means without reading all rows, where there is one.
pub(super) fn listing(filter: &Filter) -> &'static str {
    match (&filter.id, &filter.state) {
        (Some(_), _) => LIST_OF_ID,
        (None, Some(_)) => LIST_OF_STATE,
        (None, None) => LIST,
    }
}
