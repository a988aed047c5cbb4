//! One table that a pipeline feeds, under all its names.

use std::path::Path;

use firn_shared::config::domain::{Output, PayloadFormat, Pipeline};
use firn_shared::config::{Config, columns_after};
use firn_shared::error::{Error, Result};
use firn_shared::ids::{PipelineName, TableName};
use iceberg::TableIdent;
use iceberg::spec::TableMetadata;

use super::{Env, references};
use crate::execute::Conversion;
use crate::protect::{self, Protector};
use crate::quarantine;
use crate::seam::Cpu;
use crate::table::create::Definition;
use crate::table::schema::TableColumn;
use crate::table::{athena, protected};
use crate::transform::Engine;

/// A pipeline's output.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The deployment and everything in it.
    pub config: &'a Config,
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The output.
    pub output: &'a Output,
}

impl<'a> Target<'a> {
    /// The tables of all pipelines, or of one pipeline, or one table (`table` or `database.table`).
    ///
    /// # Errors
    /// `Config` when nothing has that name, or when there is no pipeline at all: doing nothing to no table would look like
    /// success.
    pub fn select(config: &'a Config, pipeline: Option<&str>, table: Option<&str>) -> Result<Vec<Self>> {
        if config.pipelines.is_empty() {
            return Err(Error::config("there is no pipeline in the files and directories of --pipelines (*.yaml)"));
        }
        if let Some(name) = pipeline
            && !config.pipelines.contains_key(&PipelineName::new(name)?)
        {
            let known: Vec<&str> = config.pipelines.keys().map(PipelineName::as_str).collect();
            return Err(Error::config(format!("no pipeline `{name}`; there are: {}", known.join(", "))));
        }
        let chosen = config.pipelines.values().filter(|p| pipeline.is_none_or(|name| p.name.as_str() == name));
        let all: Vec<Self> =
            chosen.flat_map(|p| p.outputs.iter().map(move |output| Self { config, pipeline: p, output })).collect();
        let Some(table) = table else { return Ok(all) };
        let named = |t: &&Self| t.name() == table || t.output.table.name.as_str() == table;
        let found: Vec<Self> = all.iter().filter(named).copied().collect();
        if found.is_empty() {
            let known: Vec<String> = all.iter().map(Self::name).collect();
            return Err(Error::config(format!("no table `{table}`; there are: {}", known.join(", "))));
        }
        Ok(found)
    }

    /// `database.table`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.output.table.database, self.output.table.name)
    }

    /// What becomes of its records, with the files that its look-ups read.
    ///
    /// # Errors
    /// `Config`, naming every step that cannot work; those of the stores, and of the keys that its protections need.
    pub async fn conversion(&self, env: &Env) -> Result<Conversion> {
        let folder = self.pipeline.file.parent().unwrap_or(Path::new(""));
        let references = references::load(&env.stores, &self.output.transformations, folder).await?;
        let Pipeline { outputs, ingestion, .. } = self.pipeline;
        let protector = Protector::new(self.output, outputs, ingestion.protect_at_landing, &env.keys).await?;
        let (output, record_bytes_max) = (self.output.clone(), self.pipeline.ingestion.max_record_bytes);
        // Built on a worker thread, because Polars has a say in it.
        let permit = env.cpu.permit(1).await?;
        env.cpu.run(&permit, move || Conversion::new(&output, record_bytes_max, &references, protector)).await?
    }

    /// What works on each of its transformations; asks no server.
    ///
    /// # Errors
    /// `Config`, naming every step that cannot work.
    pub async fn check_steps(&self) -> Result<Vec<Engine>> {
        let (cpu, output) = (Cpu::new(1, 1)?, self.output.clone());
        let permit = cpu.permit(1).await?;
        cpu.run(&permit, move || Conversion::check(&output)).await?
    }

    /// The catalog's name.
    #[must_use]
    pub fn ident(&self) -> TableIdent {
        crate::table::ident(&self.output.table.database, &self.output.table.name)
    }

    /// URL of the table's directory.
    #[must_use]
    pub fn location(&self) -> String {
        self.output.table.location_in(&self.config.deployment.warehouse)
    }

    /// The table's columns, provenance included when it is on.
    #[must_use]
    pub fn columns(&self) -> Vec<TableColumn> {
        let columns = columns_after(self.output).into_iter();
        let mut columns: Vec<TableColumn> =
            columns.map(|c| TableColumn { name: c.name, r#type: c.r#type, required: c.required, doc: c.doc }).collect();
        if self.output.table.provenance {
            let format = self.output.format;
            columns.push(match self.output {
                _ if format.is_change() => TableColumn::provenance_of_changes(format == PayloadFormat::Debezium),
                output if output.explodes() => TableColumn::provenance_of_several(),
                _ => TableColumn::provenance(),
            });
        }
        columns
    }

    /// The table to be.
    #[must_use]
    pub fn definition(&self) -> Definition {
        let table = &self.output.table;
        Definition {
            ident: self.ident(),
            location: self.location(),
            columns: self.columns(),
            partition_by: table.partition_by.clone(),
            sort_by: table.sort_by.clone(),
            properties: table.properties.clone(),
            needed: protect::properties(self.output).into_iter().chain(protected::of_new(self.output)).collect(),
        }
    }

    /// What of a live table Athena does not read, unless the pipeline says that it need not.
    #[must_use]
    pub fn unreadable_by_athena(&self, metadata: &TableMetadata) -> Option<String> {
        let allow = &self.output.table.athena_allow;
        let found = athena::unreadable(metadata).into_iter().filter(|(guard, _)| !allow.contains(guard));
        let found: Vec<String> = found.map(|(_, what)| what).collect();
        let (name, found, file) = (self.name(), found.join(", "), self.pipeline.file.display());
        (!found.is_empty()).then(|| {
            format!(
                "Athena does not read {name}: {found}; if it need not, set athena: {{allow: [formatVersion, types]}} of \
                 the table in {file}"
            )
        })
    }

    /// The quarantine table to be: beside the table, unpartitioned.
    ///
    /// # Errors
    /// `Config` when the name becomes too long.
    pub fn quarantine(&self) -> Result<Definition> {
        let table = &self.output.table;
        let name = TableName::new(format!("{}{}", table.name, quarantine::SUFFIX))?;
        Ok(Definition {
            ident: crate::table::ident(&table.database, &name),
            location: format!("{}{}", self.location(), quarantine::SUFFIX),
            columns: quarantine::columns(),
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            properties: std::collections::BTreeMap::new(),
            needed: std::collections::BTreeMap::new(),
        })
    }
}
