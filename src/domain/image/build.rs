//! Building images on images: content steps, and the platform layer on top of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Descriptor, History, Image, ImageError, MAX_LAYERS, canonical_json};
use crate::domain::digest::Digest;
use crate::domain::layer::LayerBlob;

/// What every published image runs.
const ENTRYPOINT: [&str; 3] = ["/sbin/tini", "--", "/usr/local/bin/workshop-backend"];

/// A layer to put on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLayer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// Digest of its tar form.
    pub diff_id: Digest,
    /// What made it, for the image's history.
    pub created_by: String,
}

impl NewLayer {
    /// A layer that was just written.
    #[must_use]
    pub fn written(blob: &LayerBlob, created_by: impl Into<String>) -> Self {
        Self { descriptor: blob.into(), diff_id: blob.diff_id, created_by: created_by.into() }
    }
}

/// An image as the bytes that are pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedImage {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its digest: the image's.
    pub digest: Digest,
    /// The config.
    pub config: Vec<u8>,
    /// The config's digest.
    pub config_digest: Digest,
}

impl Image {
    /// This image with more layers on top and `env` merged in by key. Created and every new history entry say
    /// `epoch`, in seconds since 1970.
    pub fn extend(&self, layers: &[NewLayer], env: &[(String, String)], epoch: u64) -> Result<Self, ImageError> {
        let mut image = self.clone();
        let created = rfc3339(epoch);
        image.fill_history(&created);
        for layer in layers {
            image.push_layer(layer, &created);
        }
        for (key, value) in env {
            let pair = format!("{key}={value}");
            let present = &mut image.config.config.env;
            match present.iter_mut().find(|old| old.split_once('=').map_or(old.as_str(), |(name, _)| name) == key) {
                Some(old) => *old = pair,
                None => present.push(pair),
            }
        }
        if !env.is_empty() {
            image.push_empty_history(
                &format!("env {}", env.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(" ")),
                &created,
            );
        }
        image.config.created = Some(created);
        image.manifest.annotations.clear();
        image.check_layers()?;
        Ok(image)
    }

    /// This image as it is published: assets and platform layer on top, and the platform's entrypoint.
    pub fn with_platform(
        &self,
        platform: &NewLayer,
        assets: Option<&NewLayer>,
        epoch: u64,
    ) -> Result<Self, ImageError> {
        let mut image = self.clone();
        let created = rfc3339(epoch);
        image.fill_history(&created);
        for layer in assets.into_iter().chain([platform]) {
            image.push_layer(layer, &created);
        }
        image.push_empty_history("entrypoint", &created);
        image.config.config.entrypoint = Some(ENTRYPOINT.map(str::to_owned).to_vec());
        image.config.config.cmd = None;
        // The base's health check would run its own program against a port that nobody listens on.
        image.config.config.other.remove("Healthcheck");
        image.config.created = Some(created);
        image.check_layers()?;
        Ok(image)
    }

    /// This image with these annotations added.
    #[must_use]
    pub fn with_annotations(mut self, annotations: impl IntoIterator<Item = (String, String)>) -> Self {
        self.manifest.annotations.extend(annotations);
        self
    }

    /// The bytes to push; the same for the same image anywhere.
    #[must_use]
    pub fn encode(&self) -> EncodedImage {
        let config = canonical_json(&self.config);
        let config_digest = Digest::of(&config);
        let mut manifest = self.manifest.clone();
        manifest.config = Descriptor {
            media_type: super::CONFIG.to_owned(),
            digest: config_digest,
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        };
        let manifest = canonical_json(&manifest);
        EncodedImage { digest: Digest::of(&manifest), manifest, config, config_digest }
    }

    fn push_layer(&mut self, layer: &NewLayer, created: &str) {
        self.manifest.layers.push(layer.descriptor.clone());
        self.config.rootfs.diff_ids.push(layer.diff_id);
        self.config.history.push(History {
            created: Some(created.to_owned()),
            created_by: Some(layer.created_by.clone()),
            ..History::default()
        });
    }

    fn push_empty_history(&mut self, created_by: &str, created: &str) {
        self.config.history.push(History {
            created: Some(created.to_owned()),
            created_by: Some(created_by.to_owned()),
            empty_layer: true,
            ..History::default()
        });
    }

    /// Tools count history entries against layers: a base that left its history out gets one.
    fn fill_history(&mut self, created: &str) {
        let layers = self.config.rootfs.diff_ids.len();
        let told = self.config.history.iter().filter(|entry| !entry.empty_layer).count();
        if told > layers {
            self.config.history.clear();
        }
        for _ in told.min(layers)..layers {
            self.config.history.push(History {
                created: Some(created.to_owned()),
                created_by: Some("base layer".to_owned()),
                ..History::default()
            });
        }
    }

    fn check_layers(&self) -> Result<(), ImageError> {
        let layers = self.manifest.layers.len();
        if layers > MAX_LAYERS { Err(ImageError::TooManyLayers(layers)) } else { Ok(()) }
    }

    /// The label `name`, if the image has it.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.config.other.get("Labels")?.get(name).and_then(Value::as_str)
    }
}

/// A time in RFC 3339, UTC, whole seconds.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days: years begin in March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
