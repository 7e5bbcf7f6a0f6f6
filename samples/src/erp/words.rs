//! The words a wholesaler's data is made of, and the texts that break careless programs.

use super::random::Random;

/// Texts that an ERP really holds sooner or later. None is empty, and none holds U+0000, which no database takes as text.
pub(super) const AWKWARD: &[&str] = &[
    "Süßöl-Kanister 5 ℓ, „Größe Ä“ – für Öfen",
    "Muffe 1/2\" × 3/4\" verzinkt",
    "\"ganz in Anführungszeichen\"",
    "Set: Hammer; Zange, Säge\tund Bohrer | komplett",
    "erste Zeile\nzweite Zeile",
    "Windows-Zeile\r\nund noch eine\r\n",
    "alter Mac\rWagenrücklauf",
    "  vorn und hinten Leerzeichen  ",
    "\u{a0}geschütztes Leerzeichen\u{a0}",
    "Smiley 😀, 𠮷野家, 𝔉𝔯𝔞𝔨𝔱𝔲𝔯, 👩\u{200d}🔧",
    "NULL",
    "\\N",
    "''; DROP TABLE items; --",
    "=1+1",
    "0012",
    "1e5",
    "1,50",
    "true",
    "2024-02-30",
    "C:\\Temp\\neu.txt",
    "cafe\u{301} statt café",
    "\u{feff}beginnt mit einem BOM",
    "עברית ישר and back",
    "Straße ﬁ ŉ ǅ İ ı",
    "Strg-Z \u{1a} und Glocke \u{7}",
    "Zeilentrenner \u{2028} und NEL \u{85}",
    "\u{10ffff} und \u{fffd}",
    "\"",
    ",",
    ";",
    "\n",
    " ",
    "\\",
    "'",
];

/// The longest text, in characters; a description that someone pasted a whole data sheet into.
pub(super) const LONG_TEXT_CHARS: usize = 60_000;

/// A text of [`LONG_TEXT_CHARS`] characters with line breaks, quotes and umlauts all through.
pub(super) fn long_text() -> String {
    "Prüfbericht „Öl & Gas“; Wert \"1,5\"\n".chars().cycle().take(LONG_TEXT_CHARS).collect()
}

const NOUNS: &[&str] = &[
    "Sechskantschraube",
    "Dübel",
    "Unterlegscheibe",
    "Kabelbinder",
    "Bohrer",
    "Akkuschrauber",
    "Schleifscheibe",
    "Silikon",
    "Rohrschelle",
    "Gewindestange",
    "Türdrücker",
    "Schließzylinder",
    "Lötzinn",
    "Wasserwaage",
    "Arbeitshandschuh",
    "Gehörschutz",
];
const QUALITIES: &[&str] = &["verzinkt", "Edelstahl A2", "Edelstahl A4", "weiß", "schwarz", "glasfaserverstärkt", "TX", "groß"];
const SURNAMES: &[&str] = &[
    "Müller",
    "Schröder",
    "O'Brien",
    "Łukasiewicz",
    "Núñez",
    "Çelik",
    "Bjørnsson",
    "Weiß",
    "Jäger",
    "D’Angelo",
    "Kovács",
    "Šimić",
];
const FORMS: &[&str] = &["GmbH", "& Söhne GmbH & Co. KG", "AG", "e. K.", "S.à r.l.", "sp. z o.o.", "Ltd."];
const TRADES: &[&str] = &["Bau", "Metallbau", "Elektro", "Sanitär", "Dachdeckerei", "Großhandel", "Möbelwerk", "Kältetechnik"];
const CITIES: &[(&str, &str)] = &[
    ("Köln", "DE"),
    ("München", "DE"),
    ("Würzburg", "DE"),
    ("Zürich", "CH"),
    ("Łódź", "PL"),
    ("Århus", "DK"),
    ("Besançon", "FR"),
    ("Graz", "AT"),
    ("Győr", "HU"),
    ("Coruña, A", "ES"),
];

pub(super) fn item_name(random: &mut Random) -> String {
    let (noun, quality) = (random.pick(NOUNS), random.pick(QUALITIES));
    format!("{noun} {}×{} {quality}", random.between(2, 24), random.between(10, 240))
}

pub(super) fn firm(random: &mut Random) -> String {
    let (name, trade, form) = (random.pick(SURNAMES), random.pick(TRADES), random.pick(FORMS));
    format!("{name} {trade} {form}")
}

pub(super) fn person(random: &mut Random) -> &'static str {
    random.pick(SURNAMES)
}

/// City and country.
pub(super) fn city(random: &mut Random) -> (&'static str, &'static str) {
    random.pick(CITIES)
}

/// Mostly NULL, sometimes an empty text, which is not the same, and now and then an awkward one.
pub(super) fn remark(random: &mut Random) -> Option<&'static str> {
    match random.below(200) {
        0 => Some(random.pick(AWKWARD)),
        1..=4 => Some(""),
        5..=9 => Some("Teillieferung, Rest folgt"),
        _ => None,
    }
}
