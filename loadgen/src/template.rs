//! Requests that differ from each other: counters and random choices in their path, headers and body.
//!
//! Owns: the parsed pieces. Must not know: how requests are framed.
//!
//! `{{counter}}` counts from 0, each number once over all threads; `{{uniform:N}}` is any of 0 to N-1 alike;
//! `{{zipf:N}}` and `{{zipf:N:S}}` prefer small numbers, number k with weight 1 / (k + 1)^S (S is 1 without it).

use std::sync::Arc;

use crate::schedule::Dice;

/// Numbers that a choice is made from, at most.
const CHOICES_MAX: u64 = 1_000_000;

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error(
        "{0:?} is no placeholder: write {{{{counter}}}}, {{{{uniform:N}}}}, {{{{zipf:N}}}} or {{{{zipf:N:S}}}}"
    )]
    Placeholder(String),
    #[error("a placeholder is not closed with }}}} in {0:?}")]
    Open(String),
    #[error("{0:?} chooses from fewer than 1 or more than {CHOICES_MAX} numbers")]
    Choices(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(Vec<u8>),
    Counter,
    Uniform(u64),
    /// Share of all choices that are this number or a smaller one.
    Zipf(Arc<[f64]>),
}

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Piece>);

/// Where numbers come from: one for each thread.
#[derive(Debug, Clone)]
pub struct Source {
    dice: Dice,
    next: u64,
    step: u64,
}

impl Source {
    /// The source of thread `thread` out of `threads`.
    pub fn new(seed: u64, thread: usize, threads: usize) -> Self {
        // A stream apart from the schedule's.
        let dice = Dice::new(!seed, thread as u64);
        Self { dice, next: thread as u64, step: threads as u64 }
    }

    fn count(&mut self) -> u64 {
        let number = self.next;
        self.next += self.step;
        number
    }
}

impl Template {
    /// Finds the placeholders.
    ///
    /// # Errors
    /// One that is not known.
    pub fn parse(text: &[u8]) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(begin) = memchr::memmem::find(rest, b"{{") {
            let inside = &rest[begin + 2..];
            let shown = || String::from_utf8_lossy(&inside[..inside.len().min(40)]).into_owned();
            let end = memchr::memmem::find(inside, b"}}").ok_or_else(|| TemplateError::Open(shown()))?;
            if begin > 0 {
                pieces.push(Piece::Text(rest[..begin].to_vec()));
            }
            pieces.push(placeholder(&String::from_utf8_lossy(&inside[..end]))?);
            rest = &inside[end + 2..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_vec()));
        }
        Ok(Self(pieces))
    }

    /// A text that stands for itself.
    pub fn literal(text: &[u8]) -> Self {
        Self(if text.is_empty() { Vec::new() } else { vec![Piece::Text(text.to_vec())] })
    }

    /// Whether it says the same every time.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Appends the text with the next numbers in place.
    pub fn write(&self, source: &mut Source, out: &mut Vec<u8>) {
        for piece in &self.0 {
            let number = match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Piece::Counter => source.count(),
                // The bias of a remainder is below 1 in 10^13.
                Piece::Uniform(choices) => source.dice.word() % choices,
                Piece::Zipf(shares) => {
                    let share = source.dice.unit();
                    let number = shares.partition_point(|it| *it < share);
                    number.min(shares.len() - 1) as u64
                }
            };
            push_number(out, number);
        }
    }
}

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let begin = out.len();
    loop {
        out.push(b'0' + u8::try_from(number % 10).expect("a digit"));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[begin..].reverse();
}

fn placeholder(text: &str) -> Result<Piece, TemplateError> {
    let refuse = || TemplateError::Placeholder(text.to_owned());
    let words: Vec<&str> = text.trim().split(':').map(str::trim).collect();
    let choices = |word: &str| {
        let count: u64 = word.parse().map_err(|_| refuse())?;
        if (1..=CHOICES_MAX).contains(&count) {
            Ok(count)
        } else {
            Err(TemplateError::Choices(text.to_owned()))
        }
    };
    match words[..] {
        ["counter"] => Ok(Piece::Counter),
        ["uniform", count] => Ok(Piece::Uniform(choices(count)?)),
        ["zipf", count] => Ok(Piece::Zipf(zipf(choices(count)?, 1.0))),
        ["zipf", count, exponent] => {
            let exponent: f64 =
                exponent.parse().ok().filter(|it| (0.0..=10.0).contains(it)).ok_or_else(refuse)?;
            Ok(Piece::Zipf(zipf(choices(count)?, exponent)))
        }
        _ => Err(refuse()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most a million")]
fn zipf(count: u64, exponent: f64) -> Arc<[f64]> {
    let mut sum = 0.0;
    let mut shares: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(template: &str, count: usize, thread: usize, threads: usize) -> Vec<String> {
        let template = Template::parse(template.as_bytes()).unwrap();
        let mut source = Source::new(3, thread, threads);
        let text = |_| {
            let mut out = Vec::new();
            template.write(&mut source, &mut out);
            String::from_utf8(out).unwrap()
        };
        (0..count).map(text).collect()
    }

    #[test]
    fn counters_give_each_number_to_one_thread() {
        assert_eq!(texts("/f-{{counter}}/x", 3, 0, 1), ["/f-0/x", "/f-1/x", "/f-2/x"]);
        let mut all: Vec<u64> =
            (0..3).flat_map(|it| texts("{{counter}}", 5, it, 3)).map(|it| it.parse().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..15).collect::<Vec<u64>>());
    }

    #[test]
    fn choices_have_their_weights() {
        let share = |template: &str, number: &str| {
            texts(template, 20_000, 0, 1).iter().filter(|it| *it == number).count() as f64 / 20_000.0
        };
        // Standard error of a share is at most sqrt(0.25 / 20,000) = 0.0035; the seed is fixed.
        assert!((share("{{uniform:4}}", "3") - 0.25).abs() < 0.014);
        // 1 + 1/2 + 1/3 = 11/6.
        assert!((share("{{zipf:3}}", "0") - 6.0 / 11.0).abs() < 0.014);
        assert!((share("{{ zipf : 3 : 1.0 }}", "2") - 2.0 / 11.0).abs() < 0.014);
        assert!((share("{{zipf:4:0}}", "1") - 0.25).abs() < 0.014, "exponent 0 is even");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = |text: &str| Template::parse(text.as_bytes()).unwrap_err();
        for text in [
            "{{}}",
            "{{count}}",
            "{{uniform}}",
            "{{uniform:x}}",
            "{{zipf:5:x}}",
            "{{zipf:5:-1}}",
            "{{uniform:1:2}}",
        ] {
            assert!(matches!(refused(text), TemplateError::Placeholder(_)), "{text}");
        }
        assert!(matches!(refused("a {{counter"), TemplateError::Open(_)));
        assert!(matches!(refused("{{uniform:0}}"), TemplateError::Choices(_)));
        assert!(matches!(refused("{{zipf:1000001}}"), TemplateError::Choices(_)));
    }

    proptest! {
        #[test]
        fn text_without_placeholders_stays(text in "[^{]{0,60}") {
            let template = Template::parse(text.as_bytes()).unwrap();
            prop_assert!(template.is_fixed());
            let mut out = Vec::new();
            template.write(&mut Source::new(1, 0, 1), &mut out);
            prop_assert_eq!(out, text.as_bytes());
        }

        #[test]
        fn numbers_are_decimal(number: u64) {
            let mut out = b"x".to_vec();
            push_number(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("x{number}"));
        }

        #[test]
        fn no_template_breaks_the_parser(text in "[{}a-z:0-9]{0,40}") {
            drop(Template::parse(text.as_bytes()));
        }
    }
}
