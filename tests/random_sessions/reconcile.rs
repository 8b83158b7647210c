//! Options that exclude each other, and options without effect.

use super::options::{Choices, Writer};
use super::plan::{Call, Plan};

/// Gives up options that exclude each other.
pub fn reconcile(choices: &mut Choices, writer: Writer) {
    if choices.is("input", "generate") {
        choices.keep(&[
            "input",
            "rate",
            "rates",
            "channels",
            "blocks",
            "segments",
            "gaps",
            "passwords",
            "records",
            "append",
            "archive",
        ]);
        // It has one kind of gap, and one of records; only itself can go on.
        if !choices.is("gaps", "none") {
            choices.set("gaps", "long");
        }
        if !choices.is("records", "none") {
            choices.set("records", "session");
        }
        if choices.is("append", "other") || choices.is("append", "same") {
            choices.set("append", "reopened");
        }
        return;
    }
    if choices.is("input", "float") {
        choices.forget(&["factor", "compression"]);
        // Counts are not what the signal is made of.
        if choices.is("signal", "null") {
            choices.set("signal", "noise");
        }
        // What is not made of the step that was found first would be refused later.
        if choices.is("precision", "step") {
            choices.set("segments", "one");
            choices.set("append", "none");
            if matches!(choices.of("gaps"), "off grid" | "jitter") {
                choices.set("gaps", "short");
            }
            if choices.is("signal", "extreme") {
                choices.set("signal", "noise");
            }
        }
        // An inferred precision does not know how far a signal can go.
        if choices.is("signal", "extreme") && choices.is("precision", "inferred") {
            choices.set("precision", "3");
        }
        // Others would have to be given counts.
        if choices.is("append", "other") {
            choices.set("append", "reopened");
        }
        if writer == Writer::Pymef && matches!(choices.of("records"), "segment" | "every type") {
            choices.set("records", "session");
        }
    } else {
        choices.forget(&["precision", "nan runs"]);
    }
    // The lossy blocks of pymef have a trend, which for a single sample is NaN: the
    // sample is lost, and ours refuses the block (section 8.7). And they know no
    // -2^31.
    if choices.is("compression", "lossy") {
        if matches!(choices.of("signal"), "null" | "single") {
            choices.set("signal", "ieeg");
        }
        if matches!(choices.of("blocks"), "one" | "default") {
            choices.set("blocks", "odd");
        }
    }
    if choices.is("signal", "single") {
        choices.set("gaps", "none");
        choices.set("segments", "one");
        choices.set("append", "none");
    }
    let between_calls = choices.is("gaps", "off grid") || choices.is("gaps", "jitter");
    if between_calls && choices.is("append", "none") && choices.is("segments", "one") {
        choices.set("append", "same");
    }
    if choices.is("gaps", "at border")
        && (choices.is("blocks", "default") || choices.is("blocks", "large"))
    {
        choices.set("blocks", "odd");
    }
}

/// Forgets what there turned out to be none of.
pub fn forget_without_effect(plan: &mut Plan) {
    let runs = |call: &Call| call.runs.len() > 1;
    let inner_gaps = plan
        .channels
        .iter()
        .any(|channel| channel.calls.iter().any(runs));
    if plan.input != "generate" && !inner_gaps {
        plan.choices.forget(&["nan runs"]);
        if !matches!(plan.choices.of("gaps"), "none" | "off grid" | "jitter") {
            plan.choices.forget(&["gaps"]);
        }
    }
    let calls = || plan.channels.iter().flat_map(|channel| &channel.calls);
    let appended = match plan.choices.of("append") {
        "same" => calls().any(|call| !call.begins_segment),
        "reopened" | "other" if plan.input != "generate" => calls().any(|call| call.opening == 1),
        _ => true,
    };
    if !appended {
        plan.choices.forget(&["append"]);
    }
    if plan.choices.is("channels", "1") {
        plan.choices.forget(&["rates", "starts"]);
    }
}
