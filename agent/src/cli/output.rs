//! What is printed: results on standard output, everything else on standard error.

use clap::CommandFactory as _;
use towpath_host::output::Repeated;

use super::args::Args;

pub(super) use towpath_host::output::{hint, json, line, repeat_with, say, table, table_text};

/// How commands that a message names lead to the same configuration and state folder. What stands in the environment stays there.
pub(super) fn repeated(args: &Args) -> Repeated {
    let given = [("--config", "TOWPATH_CONFIG", &args.config), ("--state", "TOWPATH_STATE", &args.state)];
    let typed = given.into_iter().filter_map(|(option, variable, path)| {
        let path = path.as_ref().filter(|path| std::env::var_os(variable).is_none_or(|set| set != path.as_os_str()))?;
        Some(format!("{option} {}", towpath_keys::shell_quoted(path)))
    });
    let options = typed.collect::<Vec<_>>().join(" ");
    let commands = Args::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    // Without options there is nothing to repeat.
    let commands = if options.is_empty() { Vec::new() } else { commands };
    Repeated { program: super::PROGRAM, commands, options }
}

/// A number with thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
