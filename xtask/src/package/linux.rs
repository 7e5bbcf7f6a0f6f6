//! The files of a product as a Linux system has them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use super::{Job, Product, done, entries, licences::Licences, read, said, write};

/// Stages everything that a package of the product installs.
pub(super) fn stage(job: &Job, product: &Product, programs: &Path, licences: &Licences) -> Result<(), String> {
    let name = product.name();
    let root = job.stages.join(&name);
    let program = root.join("usr/bin").join(&name);
    let built = programs.join(&name);
    fs::create_dir_all(root.join("usr/bin")).map_err(|e| format!("making {}: {e}", root.display()))?;
    // Symbols stay with whoever builds; a report of a failure has line numbers of its own code without them.
    done(Command::new("strip").arg("-o").arg(&program).arg(&built))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(|e| format!("{}: {e}", program.display()))?;

    let packaging = job.root.join("packaging/linux");
    let hardening = read(&packaging.join("hardening.conf"))?;
    for unit in product.units() {
        let text = read(&packaging.join(&unit))?.replace("@HARDENING@", &hardening);
        write(&root.join("usr/lib/systemd/system").join(&unit), &text)?;
    }
    let user = format!("u {} - \"Towpath {}\" {}\n", product.user, product.role, product.state());
    write(&root.join(format!("usr/lib/sysusers.d/{name}.conf")), &user)?;

    let example = said(Command::new(&built).args(["config", "example"]))? + "\n";
    let doc = root.join("usr/share/doc").join(&name);
    write(&doc.join(format!("{}.example.toml", product.role)), &example)?;
    if product.conffile {
        write(&root.join(product.config().trim_start_matches('/')), &example)?;
    }
    for text in ["README.md", "SECURITY.md", "CHANGELOG.md"] {
        write(&doc.join(text), &read(&job.root.join(text))?)?;
    }
    // What messages point to, under the names that they use.
    for folder in ["docs", "docs/errors"] {
        for page in entries(&job.root.join(folder))?.iter().filter(|page| page.extension().is_some_and(|it| it == "md")) {
            write(&doc.join(folder).join(page.file_name().unwrap_or_default()), &read(page)?)?;
        }
    }
    write(&doc.join("copyright"), &licences.own)?;
    write(&doc.join("THIRD-PARTY-LICENSES"), &licences.third_party)?;
    write(&doc.join("sbom.cdx.json"), &licences.sbom(&name)?)?;
    manual(&root, &name, &built)?;
    dated(&root, &job.time)
}

/// Manual pages, and what completes a command line in the usual shells.
fn manual(root: &Path, name: &str, built: &Path) -> Result<(), String> {
    let made = root.join("manual");
    done(Command::new(built).arg("manual").arg(&made))?;
    for file in entries(&made)? {
        let file_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = match file_name.as_str() {
            page if page.ends_with(".1") => format!("usr/share/man/man1/{page}"),
            bash if bash.ends_with(".bash") => format!("usr/share/bash-completion/completions/{name}"),
            fish if fish.ends_with(".fish") => format!("usr/share/fish/vendor_completions.d/{fish}"),
            zsh => format!("usr/share/zsh/site-functions/{zsh}"),
        };
        write(&root.join(&place), &read(&file)?)?;
        if place.ends_with(".1") {
            done(Command::new("gzip").args(["--best", "--no-name"]).arg(root.join(&place)))?;
        }
    }
    fs::remove_dir_all(&made).map_err(|e| format!("removing {}: {e}", made.display()))
}

/// Gives everything one time, so that the same programs make the same packages.
fn dated(root: &Path, time: &str) -> Result<(), String> {
    done(Command::new("find").arg(root).args(["-exec", "touch", "--no-dereference", "--date", &format!("@{time}"), "{}", "+"]))
}
