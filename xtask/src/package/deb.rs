//! Packages for Debian and Ubuntu (Debian Policy Manual, deb(5)), made by dpkg-deb.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use towpath_transfer::release::PackageKind;

use super::{Job, Product, done, read, release, said, write};

const MAINTAINER: &str = "Towpath <towpath@towpath.example>";

/// Makes the package; where it lies.
pub(super) fn make(job: &Job, product: &Product) -> Result<PathBuf, String> {
    let name = product.name();
    let root = job.stages.join(&name);
    let control = root.join("DEBIAN");
    release::record(job, product, PackageKind::Deb)?;
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
    let libraries = libraries(job, &root.join("usr/bin").join(&name))?;
    // In KiB of files as they are, so that it does not depend on the disk that they were packed on.
    let size = said(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1024"]).arg(root.join("usr")))?;
    let size = size.split_whitespace().next().unwrap_or("0");
    write(
        &control.join("control"),
        &format!(
            "Package: {name}\nVersion: {}-1\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
             Installed-Size: {size}\nSection: net\nPriority: optional\nHomepage: https://github.com/towpath/towpath\n\
             Depends: {libraries}, init-system-helpers (>= 1.52), passwd, systemd\n\
             Description: {}\n {}\n",
            job.version,
            product.summary,
            product.description.replace('\n', "\n "),
        ),
    )?;
    if product.conffile {
        write(&control.join("conffiles"), &format!("{}\n", product.config()))?;
    }
    for script in ["postinst", "prerm", "postrm"] {
        let path = control.join(script);
        write(&path, &product.filled(&read(&job.root.join("packaging/linux").join(script))?))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let package = job.out.join(format!("{name}_{}-1_{architecture}.deb", job.version));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "--build"]).env("SOURCE_DATE_EPOCH", &job.time);
    // Debian's own is xz, which Ubuntu and every dpkg reads as well.
    command.args(if job.quick { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z6"] });
    done(command.arg(&root).arg(&package))?;
    fs::remove_dir_all(&control).map_err(|e| format!("removing {}: {e}", control.display()))?;
    Ok(package)
}

/// The packages of the shared libraries that a program needs, with their versions (dpkg-shlibdeps(1)).
fn libraries(job: &Job, program: &Path) -> Result<String, String> {
    // The tool wants to stand in a source package.
    let folder = job.stages.join("shlibdeps");
    write(&folder.join("debian/control"), "Source: towpath\nPackage: towpath\n")?;
    let told = said(Command::new("dpkg-shlibdeps").arg("-O").arg(program).current_dir(&folder))?;
    let depends = told.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).ok_or_else(|| format!("dpkg-shlibdeps does not tell what {} needs: {told}", program.display()))
}
