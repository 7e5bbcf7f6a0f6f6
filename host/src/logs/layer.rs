//! From tracing's events and spans to lines.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::Context,
    registry::LookupSpan,
};

use super::{
    Sink,
    file::LogFile,
    line::{Line, MAX_FIELDS, Value, bounded},
};

/// The field that holds what happened.
const MESSAGE: &str = "message";

/// Gives each event to a sink and to the file, if there is one.
pub(super) struct LineLayer {
    sink: Box<dyn Sink>,
    file: Arc<RwLock<Option<LogFile>>>,
}

impl LineLayer {
    pub(super) fn new(sink: Box<dyn Sink>, file: Arc<RwLock<Option<LogFile>>>) -> Self {
        Self { sink, file }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // What the event itself says counts before its spans, and the inner span before the outer.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                for (name, value) in &of_span.fields {
                    fields.add_missing(name, value);
                }
            }
        }
        let metadata = event.metadata();
        let (level, target) = (*metadata.level(), metadata.target());
        let line = Line { timestamp: timestamp(), level, target, message: fields.message, fields: fields.fields };
        self.sink.write(&line);
        if let Some(file) = &*self.file.read().unwrap_or_else(PoisonError::into_inner) {
            file.push(&line);
        }
    }
}

/// The time of a log line is not one that anything is decided by, so it needs no clock of ours.
pub(super) fn timestamp() -> String {
    let mut text = String::new();
    match SystemTime.format_time(&mut Writer::new(&mut text)) {
        Ok(()) => text,
        Err(fmt::Error) => String::new(),
    }
}

/// The fields of an event or a span.
#[derive(Default)]
struct Fields {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name == MESSAGE {
            self.message = value.text();
            return;
        }
        if let Some((_, known)) = self.fields.iter_mut().find(|(known, _)| *known == name) {
            *known = value;
        } else if self.fields.len() < MAX_FIELDS {
            self.fields.push((name, value));
        }
    }

    fn add_missing(&mut self, name: &'static str, value: &Value) {
        if self.fields.len() < MAX_FIELDS && !self.fields.iter().any(|(known, _)| *known == name) {
            self.fields.push((name, value.clone()));
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::Number(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Integer(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Integer(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Flag(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(bounded(value.to_owned())));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(bounded(format!("{value:?}"))));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Line>>>);

    impl Sink for Kept {
        fn write(&self, line: &Line) {
            self.0.lock().unwrap().push(line.clone());
        }
    }

    fn logged(work: impl FnOnce()) -> Vec<Line> {
        let kept = Kept::default();
        let layer = LineLayer::new(Box::new(kept.clone()), Arc::default());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        std::mem::take(&mut *kept.0.lock().unwrap())
    }

    #[test]
    fn an_event_is_one_line_with_its_own_fields_and_those_of_its_spans() {
        let lines = logged(|| {
            let outer = tracing::info_span!("outer", transfer = "t1", stage = "push");
            let _outer = outer.entered();
            let inner = tracing::info_span!("inner", stage = "pack", late = tracing::field::Empty);
            inner.record("late", 7);
            let _inner = inner.entered();
            tracing::warn!(stage = "own", count = 3_u64, share = 0.5, whole = true, "it\nhappened {}", "twice");
        });
        let [line] = &*lines else { panic!("{lines:?}") };
        assert_eq!((line.message.as_str(), line.level), ("it\nhappened twice", tracing::Level::WARN));
        let fields: Vec<String> = line.fields.iter().map(|(name, value)| format!("{name}={}", value.text())).collect();
        assert_eq!(fields, ["stage=own", "count=3", "share=0.5", "whole=true", "late=7", "transfer=t1"]);
        assert!(line.timestamp.ends_with('Z') && line.timestamp.contains('T'), "{}", line.timestamp);
    }
}
