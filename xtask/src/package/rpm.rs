//! Packages for RHEL and its kin, and for SUSE (<https://rpm-software-management.github.io/rpm/manual/spec.html>), made by rpmbuild.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use towpath_transfer::release::PackageKind;

use super::{Job, Product, done, entries, read, release, write};

/// Makes the package; where it lies.
pub(super) fn make(job: &Job, product: &Product) -> Result<PathBuf, String> {
    let name = product.name();
    let work = job.stages.join(format!("{name}.rpm"));
    let stage = job.stages.join(&name);
    let files = work.join("files");
    release::record(job, product, PackageKind::Rpm)?;
    write(&files, &listed(&stage, product)?)?;
    let spec = product.filled(&read(&job.root.join("packaging/linux/package.spec"))?);
    let spec = [
        ("@VERSION@", &*job.version),
        ("@SUMMARY@", product.summary),
        ("@DESCRIPTION@", product.description),
        ("@STAGE@", &stage.display().to_string()),
        ("@FILES@", &files.display().to_string()),
    ]
    .iter()
    .fold(spec, |spec, (name, value)| spec.replace(name, value));
    let path = work.join(format!("{name}.spec"));
    write(&path, &spec)?;
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--quiet", "--define", &format!("_topdir {}", work.display())]);
    let payload = if job.quick { "w1.gzdio" } else { "w19.zstdio" };
    command.args(["--define", &format!("_binary_payload {payload}"), "--define", "_build_id_links none"]);
    // The host's name is nobody's business, and its clock would make every package another one.
    command.args(["--define", "_buildhost localhost", "--define", "use_source_date_epoch_as_buildtime 1"]);
    command.args(["--define", "clamp_mtime_to_source_date_epoch 1"]).env("SOURCE_DATE_EPOCH", &job.time);
    done(command.arg(&path))?;
    let made = entries(&work.join("RPMS"))?.iter().map(|folder| entries(folder)).collect::<Result<Vec<_>, _>>()?.concat();
    let [made] = &made[..] else { return Err(format!("rpmbuild has made {} packages of {name}", made.len())) };
    let package = job.out.join(made.file_name().unwrap_or_default());
    fs::rename(made, &package).map_err(|e| format!("moving {}: {e}", made.display()))?;
    Ok(package)
}

/// The files of a package as its list names them. Folders are the system's, but for those of the product's own documents.
fn listed(stage: &Path, product: &Product) -> Result<String, String> {
    let mut list = String::new();
    let mut folders = vec![stage.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut below = entries(&folder)?;
        below.sort();
        for path in below {
            let name = Path::new("/").join(path.strip_prefix(stage).unwrap_or(&path));
            if path.is_dir() {
                folders.push(path);
            } else if name == Path::new(&product.config()) {
                list.push_str(&format!("%attr(0644, root, root) %config(noreplace) {}\n", name.display()));
            } else {
                let mode = if name.starts_with("/usr/bin") { "0755" } else { "0644" };
                list.push_str(&format!("%attr({mode}, root, root) {}\n", name.display()));
            }
        }
    }
    list.push_str(&format!("%dir /usr/share/doc/{}\n", product.name()));
    Ok(list)
}
