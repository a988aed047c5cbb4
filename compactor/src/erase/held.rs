//! Tables that may hold a subject's values, and tables of whole records, whether a pipeline names them or not.

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_shared::config::columns_after;
use firn_shared::crypto::Erasable;
use firn_shared::crypto::erase::Naming;
use firn_shared::error::Result;
use firn_shared::ids::{PipelineName, TopicRef};
use iceberg::TableIdent;
use iceberg::spec::{PrimitiveType, Type};
use iceberg::table::Table;

use super::rows;
use crate::provenance;
use crate::run::{Env, Target};
use crate::table::{erasable, offsets};

/// A table, and what of it and of its records goes with a subject.
#[derive(Debug)]
pub struct Held<'a> {
    pub ident: TableIdent,
    /// The pipeline's; `None` when no pipeline names the table any more.
    pub target: Option<Target<'a>>,
    pub table: Option<Table>,
    pub erasable: BTreeSet<Erasable>,
    /// The topics whose records it is made of, now or once.
    pub topics: BTreeSet<TopicRef>,
}

/// A quarantine table: it holds whole records.
#[derive(Debug)]
pub struct Refused<'a> {
    pub ident: TableIdent,
    /// The table beside which it stands; `None` when no pipeline names it any more.
    pub target: Option<Target<'a>>,
    pub table: Option<Table>,
    /// The topics of its records; `None` when nobody knows.
    pub topics: Option<BTreeSet<TopicRef>>,
}

impl<'a> Held<'a> {
    /// The table of a pipeline. Its topics are not known yet.
    pub async fn of(env: &Env, target: Target<'a>) -> Result<Self> {
        let ident = target.ident();
        let table = env.catalog.load(&ident).await?;
        let mut erasable = erasable::of(target.output);
        if let Some(table) = &table {
            erasable.extend(erasable::recorded(table)?);
        }
        let topics = table.as_ref().map(read).transpose()?.unwrap_or_default();
        Ok(Self { ident, target: Some(target), table, erasable, topics })
    }

    /// A table that no pipeline names any more.
    pub fn forgotten(table: Table) -> Result<Self> {
        let (erasable, topics) = (erasable::recorded(&table)?, read(&table)?);
        Ok(Self { ident: table.identifier().clone(), target: None, table: Some(table), erasable, topics })
    }

    /// Its pipeline's name.
    pub fn pipeline(&self) -> Option<&'a PipelineName> {
        self.target.map(|target| &target.pipeline.name)
    }

    /// How a column of the table names a subject; `None` when there is no such column.
    pub fn naming(&self, name: &str) -> Option<Naming> {
        let Some(table) = &self.table else {
            let columns = columns_after(self.target?.output);
            return columns.iter().find(|column| column.name == name).map(|column| Naming::of(&column.r#type));
        };
        let field = table.metadata().current_schema().as_struct().field_by_name(name)?;
        Some(match *field.field_type {
            Type::Primitive(PrimitiveType::Int | PrimitiveType::Long) => Naming::Number,
            Type::Primitive(PrimitiveType::Uuid) => Naming::Uuid,
            _ => Naming::Text,
        })
    }

    /// Columns that neither a pipeline has nor a run has protected.
    pub fn foreign(&self) -> Vec<String> {
        let Some(table) = &self.table else { return Vec::new() };
        let ours: BTreeSet<String> = match self.target {
            Some(target) => target.columns().into_iter().map(|column| column.name).collect(),
            None => [provenance::COLUMN.to_owned()].into(),
        };
        let protected = rows::columns(&self.erasable);
        let all = table.metadata().current_schema().as_struct().fields().iter().map(|field| field.name.clone());
        all.filter(|name| !ours.contains(name) && !protected.contains(name)).collect()
    }
}

/// The topics that a table has read.
pub fn read(table: &Table) -> Result<BTreeSet<TopicRef>> {
    let state = offsets::current(table.metadata())?.unwrap_or_default();
    Ok(state.position.iter().map(|(partition, _)| partition.topic).collect())
}

impl<'a> Refused<'a> {
    /// The quarantine beside a pipeline's table, with records of these topics.
    pub async fn of(env: &Env, target: Target<'a>, topics: BTreeSet<TopicRef>) -> Result<Self> {
        let ident = target.quarantine()?.ident;
        let table = env.catalog.load(&ident).await?;
        Ok(Self { ident, target: Some(target), table, topics: Some(topics) })
    }
}

/// Whose records a topic's raw objects are: whom the report names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A pipeline that reads the topic, or whose tables have.
    Pipeline(PipelineName),
    /// A table that has read the topic and that no pipeline names any more.
    Table(String),
}

/// Topics of the raw zone that are looked through together, each with what finds the subject there.
#[derive(Debug)]
pub struct Pass {
    pub owner: Owner,
    pub topics: Vec<(TopicRef, Arc<firn_shared::crypto::erase::Eraser>)>,
}
