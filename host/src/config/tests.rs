use super::*;

#[test]
fn distances_are_levenshteins() {
    assert_eq!(distance("kitten", "sitting"), 3);
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(distance("abc", ""), 3);
    assert_eq!(distance("same", "same"), 0);
}

#[test]
fn only_near_names_are_suggested() {
    let problem = "unknown field `tabel`, expected one of `name`, `schedule`, `source`, `table`";
    assert_eq!(suggestion(problem).as_deref(), Some("table"));
    assert_eq!(suggestion("unknown field `zzzzzzzz`, expected `name`"), None);
    assert_eq!(suggestion("missing field `name`"), None);
}

#[test]
fn places_count_characters_and_lines() {
    let text = "ä = 1\nöö = x\n";
    let at = text.find('x').unwrap();
    let mistake = ConfigMistake::at("f", text, Some(at..at + 1), "bad");
    assert_eq!((mistake.line, mistake.column), (2, 6));
}

#[test]
fn missing_large_and_misspelt_files_are_told_apart() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(rename = "listen")]
        _listen: Option<String>,
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    assert_eq!(read_text(&file).unwrap_err().code(), Code::ConfigMissing);
    std::fs::write(&file, "#".repeat(MAX_CONFIG_BYTES + 1)).unwrap();
    assert_eq!(read_text(&file).unwrap_err().code(), Code::ConfigInvalid);
    let mistake = parse::<Sample>("\nlitsen = \"x\"\n", Path::new("x.toml")).unwrap_err().to_string();
    assert!(mistake.starts_with("x.toml:2:1: ") && mistake.ends_with("did you mean `listen`?"), "{mistake}");
}

mod every {
    use std::collections::BTreeMap;

    use toml::Spanned;

    use super::*;

    const EXAMPLE: &str = "trust = \"a\"\n[net]\nport = 1\nways = []\n[[job]]\nname = \"x\"\n[job.source]\nkind = \"a\"\npath = \"x\"\nlong = \"y\"\n";

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        #[serde(default, rename = "trust")]
        _trust: Option<Trust>,
        #[serde(default, rename = "net")]
        _net: Option<Net>,
        #[serde(default, rename = "job")]
        jobs: Vec<Job>,
        #[serde(default, rename = "more")]
        _more: BTreeMap<String, u8>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Trust {
        Approve,
        FirstUse,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Net {
        #[serde(rename = "port")]
        _port: Option<u16>,
        #[serde(rename = "ways")]
        _ways: Option<Vec<String>>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Job {
        name: Spanned<String>,
        source: Spanned<Source>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Source {
        kind: Trust,
        path: Option<String>,
        long: Option<Spanned<String>>,
    }

    fn read(text: &str) -> Result<usize, ConfigMistake> {
        let file = Path::new("x.toml");
        let whole: Whole = parse(text, file)?;
        let mut names = Vec::new();
        for job in &whole.jobs {
            if names.contains(job.name.get_ref()) {
                return Err(ConfigMistake::at(file, text, Some(job.name.span()), "another job has this name"));
            }
            names.push(job.name.get_ref().clone());
            let source = job.source.get_ref();
            if matches!(source.kind, Trust::Approve) && source.path.is_none() {
                return Err(ConfigMistake::at(file, text, Some(job.source.span()), "a source of kind \"approve\" needs `path`"));
            }
            if let Some(long) = source.long.as_ref().filter(|_| matches!(source.kind, Trust::FirstUse)) {
                return Err(ConfigMistake::at(file, text, Some(long.span()), "`long` has no effect with this kind"));
            }
        }
        Ok(names.len())
    }

    fn told(text: &str) -> Vec<String> {
        let found = every_mistake(text, Path::new("x.toml"), EXAMPLE, &read);
        found.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    const GOOD: &str = "[[job]]\nname = \"a\"\n[job.source]\nkind = \"approve\"\npath = 'x'\n";

    #[test]
    fn a_good_file_has_none() {
        assert_eq!(every_mistake(GOOD, Path::new("x.toml"), EXAMPLE, &read), Ok(1));
        assert_eq!(
            every_mistake("\tname\t=\t1", Path::new("x.toml"), EXAMPLE, &|text| {
                toml::from_str::<toml::Table>(text).map_err(|e| ConfigMistake::from_toml("x.toml", text, &e))
            })
            .map(|table| table.len()),
            Ok(1)
        );
    }

    #[test]
    fn each_is_told_once_with_its_place_and_in_order() {
        let text = format!(
            "trust = \"aprove\"\n[net]\nport = \"5432\"\nwayz = [\"a\"]\nkind = \"b\"\n{GOOD}[[job]]\nname = \"b\"\n[job.source]\nkind = \"approv\"\n"
        );
        let told = told(&text);
        assert_eq!(told.len(), 5, "{told:#?}");
        assert!(told[0].starts_with("x.toml:1:9: unknown variant") && told[0].contains("did you mean `approve`?"), "{}", told[0]);
        assert!(told[1].starts_with("x.toml:3:8: ") && told[1].contains("without quotes: port = 123"), "{}", told[1]);
        assert!(told[2].starts_with("x.toml:4:1: ") && told[2].contains("did you mean `ways`?"), "{}", told[2]);
        assert!(told[3].starts_with("x.toml:5:1: ") && told[3].contains("`kind` belongs to [job.source]"), "{}", told[3]);
        // Neither the `path` that this kind needs nor the missing kind, source or job is told of.
        assert!(told[4].starts_with("x.toml:14:8: "), "{}", told[4]);
    }

    #[test]
    fn what_follows_from_another_mistake_is_not_told() {
        for text in [
            // A misspelt key leaves its place empty.
            GOOD.replace("name =", "nmae ="),
            GOOD.replace("kind =", "knid ="),
            GOOD.replace("\"a\"", "5"),
            // Inline, where the whole statement is blanked out.
            "[[job]]\nname = \"a\"\nsource = { kind = \"aprove\", path = 'x' }\n".to_owned(),
            // The kind decides what has an effect.
            GOOD.replace("\"approve\"\n", "\"first-usd\"\nlong = \"x\"\n"),
            GOOD.replace("[job.source]", "[job.source"),
            GOOD.replace("[[job]]", "[[job]"),
            format!("{GOOD}[netz]\nport = 1\nother = 2\n"),
        ] {
            assert_eq!(told(&text).len(), 1, "{text}\n{:#?}", told(&text));
        }
        // A mistake of another job is no consequence.
        let two = format!("{}{}", GOOD.replace("name =", "nmae ="), GOOD.replace("path = 'x'\n", ""));
        assert_eq!(told(&two).len(), 2, "{:#?}", told(&two));
    }

    #[test]
    fn lines_that_are_no_toml_do_not_hide_the_others() {
        let text = format!("trust = approve\n[net]\nport: 1\nways = [“a”]\n{}", GOOD.replace("approve", "aprove"));
        let told = told(&text);
        assert_eq!(told.len(), 4, "{told:#?}");
        assert!(told[0].starts_with("x.toml:1:") && told[0].contains("stands in quotes"), "{}", told[0]);
        assert!(told[1].starts_with("x.toml:3:") && told[1].contains("TOML writes port ="), "{}", told[1]);
        assert!(told[2].starts_with("x.toml:4:") && told[2].contains("word processor"), "{}", told[2]);
        assert!(told[3].starts_with("x.toml:8:8: "), "{}", told[3]);
    }

    #[test]
    fn what_is_there_twice_is_told_with_the_place_of_the_first() {
        for (text, place, hint) in [
            (
                "[net]\nport = 1\n\n[more]\n[net]\nways = []\n",
                "x.toml:5:",
                "[net] stands in line 1 already: put the settings of both below one of them, and remove the other",
            ),
            (
                "[net]\nport = 1 # \"secret\"\nport = 2\n",
                "x.toml:3:1: ",
                "`port` stands in line 2 already: remove one of the two",
            ),
            ("[more]\nport = 1\n[net]\nport = 1\n\"port\" = 2\n", "x.toml:5:", "remove one of the two"),
            ("[[net]]\nport = 1\n[net]\nport = 1\n", "x.toml:3:", "line 1 writes it as [[net]]"),
            ("net.port = 1\n[net]\nport = 1\n", "x.toml:2:", "something above gives [net] already"),
            ("net = { port = 1, port = 2 }\n", "x.toml:1:", "remove one of the two"),
            (
                "[[job]]\nname = \"a\"\n[job.source]\nkind = \"approve\"\npath = 'x'\n[job.source]\nlong = 'secret'\n",
                "x.toml:6:",
                "[job.source] stands in line 3 already",
            ),
        ] {
            let mistake = parse::<Whole>(text, Path::new("x.toml")).unwrap_err().to_string();
            assert!(mistake.starts_with(place) && mistake.contains("duplicate key - ") && mistake.contains(hint), "{mistake}");
            assert!(!mistake.contains("secret"), "{mistake}");
            // A check of the whole file tells the same, and once.
            assert!(told(text).iter().filter(|one| **one == mistake).count() == 1, "{mistake}\n{:#?}", told(text));
        }
    }

    #[test]
    fn windows_paths_in_double_quotes_are_told_whether_toml_reads_them_or_not() {
        for path in [r#""C:\Users\erp""#, r#""C:\new\table""#, r#""\\server\share""#] {
            let text = GOOD.replace("'x'", &path.replace("\\\\", "\\"));
            assert!(told(&text)[0].contains("single quotes"), "{text}: {:?}", told(&text));
        }
        assert!(told(&GOOD.replace("'x'", "'C:\\new'")).is_empty());
    }

    #[test]
    fn at_most_so_many_are_told() {
        let many: String = (0..MAX_MISTAKES + 5).map(|n| format!("unknown{n} = 1\n")).collect();
        assert_eq!(told(&many).len(), MAX_MISTAKES);
        let several = told("a = \n b = \n c = 1\n");
        assert_eq!(several.len(), 3, "{several:?}");
    }

    #[test]
    fn a_mistake_without_a_place_or_in_another_file_is_told_as_it_is() {
        for mistake in
            [ConfigMistake::at("x.toml", "", None, "nowhere"), ConfigMistake::at("other.toml", "a", Some(0..1), "elsewhere")]
        {
            let read = |_: &str| -> Result<(), ConfigMistake> { Err(mistake.clone()) };
            assert_eq!(every_mistake("a = 1\n", Path::new("x.toml"), EXAMPLE, &read), Err(vec![mistake.clone()]));
        }
    }
}

#[test]
fn files_of_other_encodings_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    let read = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        read_text(&file).map_err(|failure| failure.report())
    };
    assert_eq!(read(b"\xef\xbb\xbfa = 1").unwrap(), "a = 1");
    for utf16 in [&b"\xff\xfea\0=\0"[..], b"\xfe\xff\0a", b"a\0=\0"] {
        assert!(read(utf16).unwrap_err().contains("UTF-16"));
    }
    assert!(read(b"a = 1\nb = '\xc3\xa4\xe4'").unwrap_err().contains("x.toml:2:7: this character is not UTF-8"));
}

#[test]
fn settings_are_found_by_their_path() {
    let text = "a = 1\n[b]\nc = 'x'\n";
    assert_eq!(place(text, &["b", "c"]).map(|span| &text[span]), Some("'x'"));
    assert_eq!(place(text, &["b", "d"]).map(|span| &text[span]), Some("[b]"));
    assert_eq!(place(text, &["e"]), None);
}

#[test]
fn names_that_are_meant_are_said() {
    let mistake = ConfigMistake::at("f", "", None, "there is no job \"mian\"").meaning("mian", ["other", "main"]);
    assert!(mistake.to_string().ends_with("did you mean `main`?"));
    assert_eq!(ConfigMistake::at("f", "", None, "x").meaning("zzz", ["main"]).meant, None);
}
