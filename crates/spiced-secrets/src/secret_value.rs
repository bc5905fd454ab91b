//! The value of a setting that may refer to secrets.

use tls_core::Secret;

use crate::Template;

/// The current value of a setting, together with its references if it has any. Since the two are one value, neither
/// can be mistaken for that of another setting, whatever the order of the settings.
#[derive(Debug, Clone)]
pub struct SecretValue {
    template: Option<Template>,
    current: Secret,
}

impl SecretValue {
    /// Returns a value that is written in place and never changes.
    pub fn literal(current: Secret) -> Self {
        Self { template: None, current }
    }

    /// Returns a value whose references were replaced.
    pub fn resolved(template: Template, current: Secret) -> Self {
        Self { template: Some(template).filter(|template| !template.is_literal()), current }
    }

    /// Returns the value as of its resolution. [`Resolver::subscribe`](crate::Resolver::subscribe) follows it.
    pub fn current(&self) -> &Secret {
        &self.current
    }

    /// Returns the value as written, if it has references.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }
}
