//! `cargo vmtest lab`: runs a program on a machine that can run machines itself, wherever this host can run one.

mod package;
mod root;
mod suite;

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use vmtest::{
    Cluster, Failure, Fixture, Node,
    cluster::{Exit, Process},
    spec::NodeSpec,
};
use vmtest_images::Image;

use suite::Suite;

const INSIDE: &str = include_str!("inside.sh");
const NODE: &str = "lab";
/// How much slower machines are in the lab than KVM is: two to three times slower than under emulation alone.
const TIMEOUT_SCALE: &str = "6";
/// Settings that say where something of this host is.
const OF_THIS_HOST: &[&str] = &["VMTEST_CACHE", "VMTEST_RUN", "VMTEST_BUDGET"];
/// What else of the environment a test binary may look at.
const PASSED_ON: &[&str] = &["VMTEST_", "RUST_", "CARGO_", "NEXTEST", "TERM"];

/// What the lab is, and what runs in it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run the conformance suite of this repository on every backend, instead of a program: prints a matrix, and fails where a
    /// case failed, or a VMM of this host does not run in the lab.
    #[arg(long)]
    conformance: bool,
    /// Write the matrix to this file too, as a page of Markdown.
    #[arg(long, value_name = "FILE", requires = "conformance")]
    matrix: Option<PathBuf>,
    /// Run the suite of this repository for users who are not root, as one.
    #[arg(long, conflicts_with = "conformance")]
    rootless: bool,
    /// Run the program as a user who is not root.
    #[arg(long)]
    user: bool,
    /// Memory of the lab in GiB.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    memory: u32,
    /// Virtual CPUs of the lab; under emulation all of them share one CPU of this host.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// Disk of the lab in GiB: sparse, but this host must have as much. What machines in the lab write is on it.
    #[arg(long, default_value_t = 2, default_value_if("conformance", "true", "8"),
        value_parser = clap::value_parser!(u32).range(1..))]
    disk: u32,
    /// End it after so many minutes.
    #[arg(long, default_value_t = 60, default_value_if("conformance", "true", "240"), value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// A directory to which the files are brought that the program puts into $LAB_OUT.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A test binary or another program of this host, with its arguments; those alone for a suite of this repository.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// What is shipped into the lab.
struct Shipped {
    /// The root directory.
    root: root::Staged,
    /// A directory with the program alone; removed with this.
    program: tempfile::TempDir,
    name: String,
    /// The package that it belongs to, if there is one.
    package: Option<package::Copied>,
    /// Where the image is, there too.
    cache: PathBuf,
}

/// Runs the program in a lab, with what it prints going where ours goes.
pub(crate) fn run(options: Options) -> Result<ExitCode, String> {
    let suite = match (options.conformance, options.rootless) {
        (true, _) => Some(Suite::Conformance),
        (_, true) => Some(Suite::Rootless),
        _ => None,
    };
    let (program, args, package) = if let Some(suite) = suite {
        let built = suite.build()?;
        (built.binary, [built.args, options.command].concat(), Some(built.package))
    } else {
        let (program, args) =
            options.command.split_first().ok_or("say what to run: `cargo vmtest lab -- <program>`")?;
        let program = find(program, &[]).ok_or_else(|| format!("there is no program `{program}`"))?;
        (program, args.to_vec(), package_dir())
    };
    let shipped = ship(&program, package)?;
    let user = if options.user || options.rootless { root::USER } else { "root" };
    let requires = suite.and_then(|suite| suite.requires(|vmm| vmm_of(vmm).is_some()));
    let mut node = NodeSpec::new(NODE)
        .nested(true)
        .memory(u64::from(options.memory) << 30)
        .cpus(options.cpus)
        .disk(u64::from(options.disk) << 30)
        .fixture(Fixture::from_dir(&shipped.root.dir).label("lab-root"), "/lab/root")
        .fixture(Fixture::from_dir(shipped.program.path()).label("lab-program"), "/lab/program");
    if let Some(package) = &shipped.package {
        node = node.fixture(Fixture::from_dir(package.copy.path()).label("lab-package"), "/lab/package");
    }
    let (out, matrix) = (options.out.clone(), options.matrix.clone());
    let ended = std::sync::Arc::new(std::sync::Mutex::new(None));
    let tell = ended.clone();
    // VMTEST_BACKEND is for what runs in it.
    let cluster = Cluster::builder().name("lab").backend("qemu").node(node);
    let cluster = cluster.timeout(Duration::from_secs(60 * options.minutes));
    eprintln!("lab: booting a machine that runs machines");
    let result = cluster.run(async move |cluster| {
        let node = cluster.node(NODE)?;
        let mut process = start(&node, &shipped, user, &args, requires).await?;
        let exit = forward(&mut process).await?;
        if let Some(out) = out {
            node.download("/mnt/lab/lab/out", out).await?;
        }
        if let Some(matrix) = matrix {
            node.download("/mnt/lab/lab/out/conformance.md", matrix).await?;
        }
        *tell.lock().expect("nobody panics with it") = Some(exit);
        Ok::<_, Failure>(())
    });
    result.map_err(|e| e.to_string())?;
    let exit = ended.lock().expect("nobody panics with it").take();
    Ok(exit.map_or(ExitCode::FAILURE, |exit: Exit| match exit.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => {
            eprintln!("lab: the program was ended by {}", exit.signal().unwrap_or("something"));
            ExitCode::FAILURE
        }
    }))
}

/// The directory of the package to which a test binary belongs, as Cargo says it to a runner, else the current one.
fn package_dir() -> Option<PathBuf> {
    let told = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    told.or_else(|| env::current_dir().ok()).filter(|dir| dir.join("Cargo.toml").exists())
}

fn ship(program: &Path, package: Option<PathBuf>) -> Result<Shipped, String> {
    let cache = vmtest_images::Cache::default_dir(rustix::process::geteuid().as_raw());
    let images = vmtest_images::Cache::open(&cache).map_err(|e| e.to_string())?;
    eprintln!("lab: collecting what is shipped");
    let image = vmtest_images::ensure(&images, &"micro".into(), &()).map_err(|e| e.to_string())?;
    // A machine with a screen is given that one.
    let shipped = Some(image.shipped_kernel()).filter(|shipped| *shipped != image.kernel);
    let Image { kernel, initramfs, nested, .. } = image;
    let record = vmtest_images::record(&images, &"micro".into()).map_err(|e| e.to_string())?;
    let vmms: Vec<_> = ["qemu", "cloud-hypervisor", "firecracker"].iter().filter_map(|vmm| set_path(vmm)).collect();
    let files: Vec<_> = [kernel, initramfs, nested, record].into_iter().chain(shipped).collect();
    let root = root::stage(&cache.join("lab"), &vmms, program, &files)?;
    let failed = |e: io::Error| format!("cannot copy {}: {e}", program.display());
    let dir = tempfile::tempdir().map_err(failed)?;
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::copy(program, dir.path().join(&name)).map_err(failed)?;
    let package = package.map(package::copy).transpose()?;
    Ok(Shipped { root, program: dir, name, package, cache })
}

/// Where the settings say that this VMM is, if they do and it is.
fn set_path(vmm: &str) -> Option<PathBuf> {
    let setting = format!("VMTEST_{}", vmm.to_uppercase().replace('-', "_"));
    env::var_os(setting).map(PathBuf::from).filter(|path| path.is_file())
}

/// The VMM of this name, if this host has it: then it is shipped.
fn vmm_of(name: &str) -> Option<PathBuf> {
    set_path(name).or_else(|| find(name, root::SYSTEM_PATH))
}

async fn start(
    node: &Node,
    shipped: &Shipped,
    user: &str,
    args: &[String],
    requires: Option<String>,
) -> Result<Process, Failure> {
    node.write("/root/inside.sh", INSIDE).await?;
    let package = shipped.package.as_ref().map_or(Path::new("/"), |package| &package.dir).display().to_string();
    let program = format!("/lab/program/{}", shipped.name);
    let words = [&package, user, &program].into_iter().map(str::to_owned).chain(args.iter().cloned());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let mut command = node.spawn(format!("sh /root/inside.sh {}", words.join(" ")));
    // Cargo has variables whose names no shell takes.
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_told = |name: &str| PASSED_ON.iter().any(|prefix| name.starts_with(prefix)) && !OF_THIS_HOST.contains(&name);
    let passed = |name: &str| is_told(name) && is_name(name);
    for (name, value) in env::vars().filter(|(name, _)| passed(name)) {
        command = command.env(name, value);
    }
    if env::var_os("VMTEST_TIMEOUT_SCALE").is_none() {
        command = command.env("VMTEST_TIMEOUT_SCALE", TIMEOUT_SCALE);
    }
    if let Some(requires) = requires.filter(|_| env::var_os("VMTEST_REQUIRE").is_none()) {
        command = command.env("VMTEST_REQUIRE", requires);
    }
    let command = command
        .env("PATH", "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin")
        .env("HOME", "/root")
        .env("VMTEST_CACHE", &shipped.cache)
        .env("LAB_OUT", "/lab/out");
    Ok(command.await?)
}

/// Shows what the program prints as it comes, and waits for its end.
async fn forward(process: &mut Process) -> Result<Exit, Failure> {
    let (mut out, mut err) = (true, true);
    while out || err {
        tokio::select! {
            chunk = process.stdout.chunk(), if out => match chunk? {
                Some(bytes) => show(&mut io::stdout(), &bytes),
                None => out = false,
            },
            chunk = process.stderr.chunk(), if err => match chunk? {
                Some(bytes) => show(&mut io::stderr(), &bytes),
                None => err = false,
            },
        }
    }
    Ok(process.wait().await?)
}

fn show(to: &mut impl Write, bytes: &[u8]) {
    // Whoever read it may have gone; the program goes on.
    drop(to.write_all(bytes).and_then(|()| to.flush()));
}

/// A program by its path, or on PATH and in these directories.
fn find(program: &str, beside: &[&str]) -> Option<PathBuf> {
    if program.contains('/') {
        return fs::canonicalize(program).ok().filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(beside.iter().map(Into::into));
    dirs.map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}
