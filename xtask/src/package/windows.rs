//! The package for Windows (Windows Installer, <https://learn.microsoft.com/windows/win32/msi/windows-installer-portal>), made by
//! wixl and msibuild, one for each language. What stands in it is in `packaging/windows`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use towpath_transfer::release::PackageKind;

use super::{Job, PRODUCTS, Product, done, icon, licences, quietly, read, release, said, windows_program, write};

/// The texts of each package, and what is added to its name.
const LANGUAGES: [(&str, &str); 2] = [("en-US", ""), ("de-DE", "-de")];
/// The code page of both languages' texts: Western European.
const CODE_PAGE: &str = "\r\n\r\n1252\t_ForceCodepage\r\n";
/// What takes symbols out of a program of Windows.
const STRIP: &str = "x86_64-w64-mingw32-strip";

/// Makes the packages; where they lie.
pub(super) fn make(job: &Job, program: &Path) -> Result<Vec<PathBuf>, String> {
    let [agent, ..] = &PRODUCTS;
    let stage = stage(job, agent, program)?;
    let mut made = Vec::new();
    for (language, end) in LANGUAGES {
        let package = job.out.join(format!("{}-{}-x64{end}.msi", agent.name(), job.version));
        compile(job, &stage, language, &package)?;
        sign(job, &package)?;
        made.push(package);
    }
    Ok(made)
}

/// The files of the package, under names that wixl takes as they are.
fn stage(job: &Job, agent: &Product, program: &Path) -> Result<PathBuf, String> {
    let stage = job.stages.join("windows");
    fs::create_dir_all(&stage).map_err(|e| format!("making {}: {e}", stage.display()))?;
    let staged = stage.join("towpath-agent.exe");
    done(Command::new(STRIP).arg("-o").arg(&staged).arg(program))?;
    sign(job, &staged)?;
    let licences = licences::collect(job, Some(windows_program::TARGET))?;
    licences.write_beside(&job.out, "windows", &[agent.name()])?;
    let example = read(&job.root.join("agent/src/config/example.toml"))?;
    let texts = [
        ("LICENSE.txt", licences.own.clone()),
        ("THIRDPTY.txt", licences.third_party.clone()),
        ("SBOM.cdx.json", licences.sbom(&agent.name())?),
        ("EXAMPLE.tml", example),
        ("package.json", release::said_of(job, PackageKind::Msi, release::WINDOWS_ARCH)),
    ];
    for (name, text) in texts {
        write(&stage.join(name), &text.replace("\r\n", "\n").replace('\n', "\r\n"))?;
    }
    let file = stage.join("towpath.ico");
    fs::write(&file, icon::icon()).map_err(|e| format!("writing {}: {e}", file.display()))?;
    Ok(stage)
}

/// Compiles the package, and sets in its tables what the compiler does not know.
fn compile(job: &Job, stage: &Path, language: &str, package: &Path) -> Result<(), String> {
    let folder = job.root.join("packaging/windows");
    let mut texts = texts(&folder.join(format!("{language}.toml")))?;
    texts.insert("Version".to_owned(), job.version.clone());
    // wixl looks for files beside its source.
    let source = stage.join("towpath-agent.wxs");
    write(&source, &filled(&read(&folder.join("towpath-agent.wxs"))?, &texts)?)?;
    let mut wixl = tool("wixl");
    wixl.args(["--arch", "x64"]);
    quietly(wixl.arg("--output").arg(package).arg(&source).current_dir(stage))?;
    let codepage = stage.join("_ForceCodepage.idt");
    write(&codepage, CODE_PAGE)?;
    let mut tables = tool("msibuild");
    tables.arg(package).arg("-i").arg(&codepage);
    for statement in statements(&read(&folder.join("tables.sql"))?, &texts)? {
        tables.arg("-q").arg(statement);
    }
    quietly(&mut tables)?;
    // The summary is read before anything else, by people as well: title, author, and for which processors and language it is.
    let template = format!("x64;{}", text(&texts, "Language")?);
    quietly(tool("msibuild").arg(package).args(["-s", text(&texts, "Name")?, "Towpath", &template]))?;
    whole(package)
}

/// A tool that takes words and files as UTF-8.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("LC_ALL", "C.UTF-8");
    command
}

fn text<'a>(texts: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str, String> {
    texts.get(name).map(String::as_str).ok_or_else(|| format!("there is no text {name}"))
}

/// The texts of a language. None may have characters that mean something in XML or SQL.
fn texts(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let texts: BTreeMap<String, String> = toml::from_str(&read(file)?).map_err(|e| format!("{}: {e}", file.display()))?;
    match texts.iter().find(|(_, text)| text.contains(['<', '>', '&', '"', '\'', '`'])) {
        Some((name, _)) => Err(format!("{}: {name} has a character that XML or SQL takes for its own", file.display())),
        None => Ok(texts),
    }
}

/// The statements of a file, one for each line, with the texts in their places.
fn statements(file: &str, texts: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with("--"));
    lines.map(|line| filled(line, texts)).collect()
}

/// A text with others in the places that name them: `@Name@`.
fn filled(text: &str, texts: &BTreeMap<String, String>) -> Result<String, String> {
    let filled = texts.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    match filled.lines().find(|line| line.contains('@')) {
        Some(line) => Err(format!("packaging/windows names a text that there is not: {}", line.trim())),
        None => Ok(filled),
    }
}

/// What was set is there: msibuild does not tell of every statement that it did not understand.
fn whole(package: &Path) -> Result<(), String> {
    let table = |name: &str| said(tool("msiinfo").arg("export").arg(package).arg(name));
    let expected = [
        ("Environment", "=-*PATH"),
        ("InstallExecuteSequence", "RemoveExistingProducts\t\t1501"),
        ("InstallExecuteSequence", "WriteEnvironmentStrings\t\t5200"),
        ("Property", "SecureCustomProperties\tDATADIR;"),
        ("Property", "MsiHiddenProperties\tRELAY_CODE;PROXY"),
        ("CustomAction", "\nSetUp\t11282"),
        ("CustomAction", "\nUndoSetUp\t3410"),
        ("CustomAction", "\nUndoRemoval\t3410"),
        ("Upgrade", "\t513\t"),
        ("Upgrade", "\t0\t\tWIX_DOWNGRADE_DETECTED"),
        ("LaunchCondition", "NOT WIX_DOWNGRADE_DETECTED OR GOBACK=1\t"),
        ("Error", "1722\t"),
        ("_ForceCodepage", "1252\t"),
    ];
    for (name, row) in expected {
        if !table(name)?.contains(row) {
            return Err(format!("{} has no {row:?} in its table {name}", package.display()));
        }
    }
    Ok(())
}

/// Signs a file by the publisher's own command, which gets its path and signs it where it lies.
fn sign(job: &Job, file: &Path) -> Result<(), String> {
    let Some(command) = &job.sign else { return Ok(()) };
    done(Command::new("sh").args(["-c", &format!("{command} \"$1\""), "sign"]).arg(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        crate::repository::root().unwrap().join("packaging/windows")
    }

    #[test]
    fn both_languages_have_the_same_texts_and_every_one_has_a_place() {
        let [english, german] = LANGUAGES.map(|(language, _)| texts(&folder().join(format!("{language}.toml"))).unwrap());
        assert!(english.keys().eq(german.keys()));
        let places = fs::read_to_string(folder().join("towpath-agent.wxs")).unwrap()
            + &fs::read_to_string(folder().join("tables.sql")).unwrap();
        for name in english.keys() {
            assert!(places.contains(&format!("@{name}@")), "{name}");
        }
    }

    #[test]
    fn texts_come_where_they_belong_and_a_missing_one_is_told() {
        let texts = BTreeMap::from([("A".to_owned(), "x y".to_owned())]);
        let filled = statements("-- why\nUPDATE t SET a = '@A@'\n\nDELETE FROM t\n", &texts).unwrap();
        assert_eq!(filled, ["UPDATE t SET a = 'x y'", "DELETE FROM t"]);
        assert!(statements("UPDATE t SET a = '@B@'\n", &texts).unwrap_err().contains("@B@"));
    }

    #[test]
    fn what_sql_takes_for_its_own_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "A = \"it's\"\n").unwrap();
        assert!(texts(file.path()).unwrap_err().contains("A has a character"));
    }
}
