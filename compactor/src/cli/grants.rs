//! `compactor grants`: the roles of `firn.yaml` as permissions of AWS Lake Formation.

use std::collections::BTreeSet;

use firn_shared::config::Config;
use firn_shared::error::{ErrorKind, Result};
use firn_shared::store::Stores;

use super::findings::print;
use super::{DONE, Format, NOTHING_TO_DO, exit_code, tell};
use crate::access::lake_formation::LakeFormation;
use crate::access::managed::{self, Managed};
use crate::access::{Step, difference, wanted};

/// Prints the steps and, unless this is a dry run, carries them out.
pub(super) async fn grants(config: &Config, dry_run: bool, format: Format) -> Result<u8> {
    let wanted = wanted(config)?;
    let warehouse = Stores::new(config.deployment.s3.clone()).open(&config.deployment.warehouse).await?;
    let earlier = managed::load(&*warehouse).await?;
    let lake = LakeFormation::connect(config).await?;
    let found = lake.found(config, &earlier).await?;
    for resource in &found.open {
        tracing::warn!(
            resource,
            "open to IAM_ALLOWED_PRINCIPALS, so Lake Formation does not restrict it; revoke that grant to make roles count"
        );
    }
    let steps = difference(&wanted, &found.permissions);
    print(format, &steps, ToString::to_string)?;
    if dry_run {
        return Ok(if steps.is_empty() { NOTHING_TO_DO } else { DONE });
    }
    let ours = managed::of(&wanted);
    let both: BTreeSet<Managed> = ours.union(&earlier).cloned().collect();
    if both != earlier {
        managed::save(&*warehouse, both.clone()).await?;
    }
    if let Some(kind) = carry_out(&lake, &steps).await {
        return Ok(exit_code(kind));
    }
    if ours != both {
        managed::save(&*warehouse, ours).await?;
    }
    tracing::info!(steps = steps.len(), "grants are as firn.yaml says");
    Ok(if steps.is_empty() { NOTHING_TO_DO } else { DONE })
}

/// Carries out the steps; one that fails is told and does not keep the others from it. The kind of the first failure.
async fn carry_out(lake: &LakeFormation, steps: &[Step]) -> Option<ErrorKind> {
    let mut failure = None;
    for step in steps {
        if let Err(error) = lake.apply(step).await {
            tell(&error, Format::Text);
            failure.get_or_insert(error.kind());
        }
    }
    failure
}
