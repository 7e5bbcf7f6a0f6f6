//! The planning data contract (`samples/profiles/contract.toml`): what it says, and whether an ERP has what it asks for.

mod check;
mod contract;
mod document;

pub use self::{
    check::{ColumnReport, ErpTableReport, Found, PlanningCheck, State, TableReport, check},
    contract::{Contract, ContractColumn, ContractTable, Convention},
};
