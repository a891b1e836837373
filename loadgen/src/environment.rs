//! The machine that a run happened on: what a reader must know to compare it with another.
//!
//! Owns: nothing. Must not know: the run.

use serde::{Deserialize, Serialize};

/// What is disclosed with every result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub governor: String,
    pub clock_source: String,
    /// Mitigations in force, as the kernel lists them, those that do not apply left out.
    pub mitigations: Vec<String>,
    /// 1, 5 and 15 minutes, before the run.
    pub load_average: String,
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

impl Environment {
    /// Looks around. What a machine does not tell is `unknown`.
    pub fn read() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let uname = rustix::system::uname();
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            governor: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clock_source: first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            mitigations: mitigations(),
            load_average: first_line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

fn mitigations() -> Vec<String> {
    let directory = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let mut found: Vec<String> = directory
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let state = first_line(&entry.path().to_string_lossy());
            format!("{}: {state}", entry.file_name().to_string_lossy())
        })
        .filter(|line| !line.ends_with(": Not affected"))
        .collect();
    found.sort();
    found
}

/// Time that a hypervisor gave to other machines and all time, in ticks over all cores since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stolen {
    pub steal: u64,
    pub all: u64,
}

impl Stolen {
    /// Reads proc(5)'s /proc/stat.
    pub fn read() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        // Guests' time (fields 9 and 10) is in user time already.
        Self { steal: numbers.get(7).copied().unwrap_or(0), all: numbers.iter().take(8).sum() }
    }

    /// Share of the time since `earlier` that was stolen, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "ticks since boot fit 53 bits")]
    pub fn share_since(&self, earlier: &Self) -> f64 {
        let (steal, all) = (self.steal - earlier.steal.min(self.steal), self.all - earlier.all.min(self.all));
        steal as f64 / all.max(1) as f64
    }
}

/// Nanoseconds that reading the clock takes: far less than a microsecond where it needs no system call.
#[expect(clippy::cast_precision_loss, reason = "a few thousand nanoseconds")]
pub fn clock_cost_ns() -> f64 {
    const READS: u32 = 2000;
    // The best of a few: another process in between is no cost of the clock.
    (0..5)
        .map(|_| {
            let begun = std::time::Instant::now();
            for _ in 0..READS {
                std::hint::black_box(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic));
            }
            begun.elapsed().as_nanos() as f64 / f64::from(READS)
        })
        .fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_all_time() {
        let before = Stolen::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n");
        let after = Stolen::parse("cpu  150 0 150 850 0 0 0 50 40 0\n");
        assert_eq!(after, Stolen { steal: 50, all: 1200 });
        assert!((after.share_since(&before) - 0.25).abs() < 1e-9);
        assert!(before.share_since(&after) < 1e-9, "a clock that goes back steals nothing");
        assert_eq!(Stolen::parse(""), Stolen { steal: 0, all: 0 });
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let environment = Environment::read();
        assert!(!environment.kernel.is_empty() && environment.cores > 0);
        assert!(clock_cost_ns() > 0.0);
    }
}
