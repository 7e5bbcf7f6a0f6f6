//! The contract as a page for people: `docs/planning-data.md`.

use std::fmt::Write as _;

use super::contract::{Contract, ContractTable};

impl Contract {
    /// The page, in Markdown. `towpath-agent profile contract` prints it, and `docs/planning-data.md` is a copy.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut page = format!("# Planning data\n\n{}\n\nThis is version {} of the contract. ", self.about.trim(), self.version);
        page.push_str(
            "The page is printed by `towpath-agent profile contract`; what it says is data in\n\
             [samples/profiles/contract.toml](../samples/profiles/contract.toml). How a profile is used stands in\n\
             [operations](operations.md#profiles).\n\n## What holds in all tables\n\n",
        );
        for convention in &self.conventions {
            // Writing into a string does not fail.
            let _ = writeln!(page, "- **{}.** {}", convention.name, convention.about.trim());
        }
        page.push_str(
            "\nA table or column that is *needed* must be there; a column that may be NULL says so. Further tables and columns\n\
             that a job brings are sent as they are.\n",
        );
        for table in &self.tables {
            section(&mut page, table);
        }
        page
    }
}

fn section(page: &mut String, table: &ContractTable) {
    let needed = if table.required { "Needed." } else { "Not every ERP has it." };
    let keys: Vec<String> = table.key.iter().map(|key| format!("`{key}`")).collect();
    let _ = write!(page, "\n## {}\n\n{} {needed} Key: {}.\n\n", table.name, table.about, keys.join(", "));
    page.push_str("| column | type | needed | NULL | meaning |\n|---|---|---|---|---|\n");
    let yes = |is: bool| if is { "yes" } else { "" };
    for column in &table.columns {
        let (needed, null) = (yes(column.required), yes(column.nullable));
        let _ = writeln!(page, "| `{}` | {} | {needed} | {null} | {} |", column.name, column.sql_type, column.about);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_docs_is_the_contract() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/planning-data.md");
        let page = std::fs::read_to_string(file).unwrap_or_default();
        let wanted = Contract::get().unwrap().markdown();
        assert!(page == wanted, "make it anew: towpath-agent profile contract > docs/planning-data.md");
    }
}
