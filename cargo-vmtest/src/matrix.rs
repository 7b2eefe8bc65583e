//! `cargo vmtest matrix`: the jobs of a CI run.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use serde::Serialize;
use vmtest_images::ImageSpec;

use super::{
    cache_key,
    declared::{Source, Test, check_backends},
    filter::filter,
    output::line,
};

/// The backend of tests that leave it to the settings.
const AUTO: &str = "auto";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Into how many jobs the tests of each backend and image are split; never more than there are tests.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    shards: u32,
    /// Backends that the CI has, separated by commas; without, those that tests name, and `auto` for the others.
    #[arg(long = "backend", value_delimiter = ',')]
    backends: Vec<String>,
    /// Print it as JSON on one line, as GitHub Actions reads a matrix.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Serialize)]
struct Matrix {
    include: Vec<Job>,
}

/// A job of the matrix.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Job {
    /// For people.
    name: String,
    /// For `VMTEST_BACKEND`.
    backend: String,
    /// The image of its machines; several with a `+` between them, where a test has machines of several.
    image: String,
    /// The number of the job among those of this backend and image, from 1.
    shard: usize,
    shards: usize,
    /// For `--partition` of nextest.
    partition: String,
    /// For `-E` of nextest.
    filter: String,
    /// How many tests all shards of this backend and image have together.
    tests: usize,
    /// Names what the cache has when all images are made that these tests want.
    #[serde(rename = "cache-key")]
    cache_key: String,
}

/// Prints the matrix of what is not ignored.
pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    let tests = options.source.list()?;
    let matrix = matrix(&tests, &options.backends, options.shards as usize)?;
    if options.json {
        line(serde_json::to_string(&matrix).expect("a matrix is plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    let width = matrix.include.iter().map(|job| job.name.len()).max().unwrap_or_default();
    for job in &matrix.include {
        line(format_args!("{:width$}  {} tests by {}, cache {}", job.name, job.tests, job.partition, job.cache_key));
    }
    Ok(ExitCode::SUCCESS)
}

fn matrix(tests: &[Test], backends: &[String], shards: usize) -> Result<Matrix, String> {
    check_backends(backends)?;
    let mut jobs: BTreeMap<(String, String), Vec<&Test>> = BTreeMap::new();
    for test in tests.iter().filter(|test| !test.ignored) {
        let names: BTreeSet<_> = test.declared.images.iter().map(|image| image.name.as_str()).collect();
        let image = names.into_iter().collect::<Vec<_>>().join("+");
        for backend in backends_of(test, backends) {
            jobs.entry((backend, image.clone())).or_default().push(test);
        }
    }
    let mut include = Vec::new();
    for ((backend, image), tests) in jobs {
        let images: BTreeSet<ImageSpec> = tests.iter().flat_map(|test| test.declared.images.iter().cloned()).collect();
        let cache_key = cache_key::of(&images)?;
        let filter = filter(tests.iter().copied());
        // An empty job is a failure to nextest, and nothing to do for a CI.
        let shards = shards.min(tests.len());
        include.extend((1..=shards).map(|shard| Job {
            name: format!("{image} on {backend}, {shard} of {shards}"),
            backend: backend.clone(),
            image: image.clone(),
            shard,
            shards,
            // Evenly over all binaries; a hash leaves some empty where there are few tests.
            partition: format!("slice:{shard}/{shards}"),
            filter: filter.clone(),
            tests: tests.len(),
            cache_key: cache_key.clone(),
        }));
    }
    Ok(Matrix { include })
}

/// The backends on which a test runs in a CI that has these, or has not said which.
fn backends_of(test: &Test, of_ci: &[String]) -> Vec<String> {
    let named = &test.declared.backends;
    match (named.is_empty(), of_ci.is_empty()) {
        (true, true) => vec![AUTO.to_owned()],
        (false, true) => named.clone(),
        (_, false) => of_ci.iter().filter(|name| test.may_run_on(name)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::declared::examples::test;
    use super::*;

    fn some() -> Vec<Test> {
        let mut ignored = test("web", "by_hand", 1, &[]);
        ignored.ignored = true;
        let mut debian = test("web", "installs", 1, &["qemu"]);
        debian.declared.images = ["debian-12".into()].into();
        vec![
            test("web", "boots", 1, &[]),
            test("web::faults", "elects", 3, &["qemu", "fake"]),
            test("web::faults", "late", 3, &["qemu"]),
            debian,
            ignored,
        ]
    }

    fn jobs(backends: &[&str], shards: usize) -> Vec<String> {
        let backends: Vec<_> = backends.iter().map(|&name| name.to_owned()).collect();
        let matrix = matrix(&some(), &backends, shards).unwrap();
        matrix.include.into_iter().map(|job| format!("{}: {} {}", job.name, job.tests, job.filter)).collect()
    }

    #[test]
    fn each_test_is_in_one_job_of_each_backend_that_it_names() {
        assert_eq!(
            jobs(&[], 3),
            [
                "micro on auto, 1 of 1: 1 binary_id(=web) & test(/^(boots)(::|$)/)",
                "micro on fake, 1 of 1: 1 binary_id(=web::faults) & test(/^(elects)(::|$)/)",
                "debian-12 on qemu, 1 of 1: 1 binary_id(=web) & test(/^(installs)(::|$)/)",
                "micro on qemu, 1 of 2: 2 binary_id(=web::faults) & test(/^(elects|late)(::|$)/)",
                "micro on qemu, 2 of 2: 2 binary_id(=web::faults) & test(/^(elects|late)(::|$)/)",
            ]
        );
        assert_eq!(
            jobs(&["qemu"], 1),
            [
                "debian-12 on qemu, 1 of 1: 1 binary_id(=web) & test(/^(installs)(::|$)/)",
                "micro on qemu, 1 of 1: 3 (binary_id(=web) & test(/^(boots)(::|$)/)) | \
                 (binary_id(=web::faults) & test(/^(elects|late)(::|$)/))",
            ]
        );
        assert_eq!(jobs(&["fake"], 9).len(), 1, "no test gets fakes that does not name them");
        assert!(matrix(&[], &["qemo".into()], 1).unwrap_err().contains("there are cloud-hypervisor, qemu"));
    }

    #[test]
    fn github_reads_it() {
        let json = serde_json::to_value(matrix(&some(), &[], 2).unwrap()).unwrap();
        let job = &json["include"][4];
        assert_eq!(
            (&job["backend"], &job["image"], &job["partition"]),
            (&"qemu".into(), &"micro".into(), &"slice:2/2".into())
        );
        assert!(job["cache-key"].as_str().is_some_and(|key| key.starts_with("vmtest-")), "{job}");
        assert_eq!(json.as_object().unwrap().len(), 1, "every other key would be an axis");
    }
}
