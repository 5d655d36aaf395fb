//! The tables one query sees: topics, system tables, nothing else.
//!
//! Called by the engine, once per query; DataFusion asks it for tables by name.
//! Invariants: the metadata catalog is taken once per query; a topic asked for twice is one
//! table, so that a self join sees one moment.
//! Refuses: registering anything.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::DataFusionError;
use model::catalog::Catalog;
use storage::Store;

use crate::system;
use crate::topic::TopicTable;

/// Name of the schema that topics are in; queries need not write it.
pub(crate) const TOPICS: &str = "topics";
/// Name of the catalog; queries need not write it.
pub(crate) const CATALOG: &str = "rustmq";

/// The catalog of one query.
#[derive(Clone)]
pub(crate) struct Names {
    catalog: Arc<Catalog>,
    store: Store,
    tables: Arc<Mutex<HashMap<String, Arc<dyn TableProvider>>>>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names(catalog version {})", self.catalog.version())
    }
}

impl Names {
    pub(crate) fn new(catalog: Arc<Catalog>, store: Store) -> Names {
        Names {
            catalog,
            store,
            tables: Arc::default(),
        }
    }

    fn topic_names(&self) -> Vec<&str> {
        self.catalog
            .topics()
            .map(|topic| topic.name.as_str())
            .collect()
    }

    /// What to say about a topic that is not there; `None` if it is.
    pub(crate) fn topic_missing(&self, name: &str) -> Option<String> {
        if self.catalog.topic(name).is_some() {
            return None;
        }
        let listed: Vec<&str> = self
            .topic_names()
            .into_iter()
            .filter(|topic| !topic.starts_with('_'))
            .collect();
        Some(format!(
            "unknown topic `{name}`{}",
            expr::names::advice(name, "topics", &listed)
        ))
    }

    pub(crate) fn system_missing(&self, name: &str) -> Option<String> {
        if system::TABLES.contains(&name) {
            return None;
        }
        let advice = expr::names::advice(name, "system tables", &system::TABLES);
        Some(format!("unknown system table `{name}`{advice}"))
    }

    /// A schema that is not there; mostly a topic's name with a dot in it.
    pub(crate) fn schema_missing(&self, schema: &str, table: &str) -> Option<String> {
        let whole = format!("{schema}.{table}");
        Some(match self.catalog.topic(&whole) {
            Some(_) => format!("write the topic in double quotes: \"{whole}\""),
            None => format!(
                "unknown schema `{schema}`: topics are in `{TOPICS}`, system tables in `system`; \
                 a topic with a dot in its name goes in double quotes"
            ),
        })
    }

    fn topic(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let topic = self.catalog.topic(name)?;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables
            .entry(name.to_string())
            .or_insert_with(|| Arc::new(TopicTable::new(topic, self.store.clone())));
        Some(table.clone())
    }
}

impl CatalogProvider for Names {
    fn schema_names(&self) -> Vec<String> {
        vec![TOPICS.to_string(), "system".to_string()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            TOPICS => Some(Arc::new(Topics(self.clone()))),
            "system" => Some(Arc::new(System(self.clone()))),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Topics(Names);

#[async_trait]
impl SchemaProvider for Topics {
    fn table_names(&self) -> Vec<String> {
        self.0
            .topic_names()
            .into_iter()
            .map(str::to_string)
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.0.topic(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.catalog.topic(name).is_some()
    }
}

#[derive(Debug)]
struct System(Names);

#[async_trait]
impl SchemaProvider for System {
    fn table_names(&self) -> Vec<String> {
        system::TABLES.iter().map(ToString::to_string).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        system::table(name, &self.0.catalog, &self.0.store)
    }

    fn table_exist(&self, name: &str) -> bool {
        system::TABLES.contains(&name)
    }
}
