//! Text of SVG.

use std::fmt::{self, Write as _};

/// A picture that is being drawn.
pub(super) struct Picture {
    width: f64,
    height: f64,
    body: String,
}

const STYLE: &str = "text{font-family:DejaVu Sans,Helvetica,Arial,sans-serif;font-size:12px;fill:#222}\
                     .title{font-size:17px;font-weight:bold}.small{font-size:10px;fill:#556;paint-order:stroke;stroke:#fff;stroke-width:3px}\
                     .right{text-anchor:end}.middle{text-anchor:middle}";

impl Picture {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// One element. `attributes` are SVG's own words, none of them from outside.
    pub(super) fn element(&mut self, name: &str, attributes: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "<{name} {attributes}/>");
    }

    pub(super) fn line(&mut self, from: [f64; 2], to: [f64; 2], stroke: fmt::Arguments<'_>) {
        let ([x1, y1], [x2, y2]) = (from, to);
        self.element("line", format_args!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {stroke}"));
    }

    pub(super) fn circle(&mut self, at: [f64; 2], radius: f64, paint: fmt::Arguments<'_>) {
        self.element("circle", format_args!("cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\" {paint}", at[0], at[1]));
    }

    /// Words, of a class of the style.
    pub(super) fn text(&mut self, at: [f64; 2], class: &str, words: &str) {
        let words = escaped(words);
        let _ = writeln!(self.body, "<text x=\"{:.1}\" y=\"{:.1}\" class=\"{class}\">{words}</text>", at[0], at[1]);
    }

    pub(super) fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
             <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
