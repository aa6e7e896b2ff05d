//! `vdctl image`: qcow2 files that anybody may have made.

mod report;
mod second_opinion;

use std::process::ExitCode;

use snapshot_engine::reader::{self, Failure, Image};

use crate::args::{ImageCheckArgs, ImageCommand, Output};
use crate::output;
use report::{Report, Verdict};
use second_opinion::Opinion;

pub(crate) fn run(command: &ImageCommand) -> anyhow::Result<ExitCode> {
    match command {
        ImageCommand::Check(args) => check(args),
    }
}

fn check(args: &ImageCheckArgs) -> anyhow::Result<ExitCode> {
    let report = report(args)?;
    match args.output {
        Output::Json => output::print_json(&report)?,
        Output::Table => output::print(&report.text())?,
    }
    let contradicted = matches!(report.second_opinion, Some(Opinion::Differs { .. }));
    if report.verdict == Verdict::Accepted && !contradicted {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn report(args: &ImageCheckArgs) -> anyhow::Result<Report> {
    let file = match reader::open(&args.file) {
        Ok(file) => file,
        Err(Failure::Refused(refusal)) => return Ok(Report::refused(&args.file, None, refusal)),
        Err(Failure::Unreadable(error)) => return Err(anyhow::anyhow!("{error}")),
    };
    match reader::check(&file) {
        Ok(mut image) => {
            let opinion = opinion(args, &mut image);
            Report::accepted(&args.file, &file, image.facts(), opinion)
        }
        Err(Failure::Refused(refusal)) => Ok(Report::refused(&args.file, Some(&file), refusal)),
        Err(Failure::Unreadable(error)) => Err(anyhow::anyhow!("{error}")),
    }
}

/// Asked about accepted images only: the other reader follows what an image says.
fn opinion(args: &ImageCheckArgs, image: &mut Image<'_>) -> Option<Opinion> {
    args.second_opinion.then(|| second_opinion::ask(image))
}
