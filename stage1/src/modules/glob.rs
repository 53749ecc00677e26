//! The shell patterns of `modules.alias` (`fnmatch(3)` without flags).

/// Whether `text` matches `pattern`: `*`, `?`, `[a-f]`, `[!x]` and `\` as an escape.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star did not fit: one character further into the text.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        match one(&pattern[p..], text[t]) {
            Some(taken) => {
                p += taken;
                t += 1;
            }
            None => match star {
                Some((after, from)) => {
                    p = after;
                    t = from + 1;
                    star = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
}

/// How many bytes of the pattern the character uses up, if it fits.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => set(pattern, c),
        b'\\' if pattern.len() > 1 => (pattern[1] == c).then_some(2),
        own => (own == c).then_some(1),
    }
}

/// A bracket expression; without its closing bracket it is an ordinary character.
fn set(pattern: &[u8], c: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    let Some(end) = (first + 1..pattern.len()).find(|&at| pattern[at] == b']') else {
        return (c == b'[').then_some(1);
    };
    let inside = &pattern[first..end];
    let mut found = false;
    let mut at = 0;
    while at < inside.len() {
        if at + 2 < inside.len() && inside[at + 1] == b'-' {
            found |= (inside[at]..=inside[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= inside[at] == c;
            at += 1;
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_of_real_drivers() {
        let e1000 = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";
        assert!(matches("pci:v00008086d0000100Esv*sd*bc*sc*i*", e1000));
        assert!(!matches("pci:v00008086d0000100Fsv*sd*bc*sc*i*", e1000));
        assert!(matches("virtio:d00000001v*", "virtio:d00000001v00001AF4"));
        assert!(matches(
            "usb:v0BDAp8152d*dc*dsc*dp*icFFisc*ip*in*",
            "usb:v0BDAp8152d3100dc00dsc00dp00icFFiscFFip00in00"
        ));
        assert!(matches("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00"));
        assert!(matches("usb:v0424pec00d01[0-4]*dc*", "usb:v0424pec00d0103dcFF"));
        assert!(!matches("usb:v0424pec00d01[0-4]*dc*", "usb:v0424pec00d0190dcFF"));
    }

    #[test]
    fn corners() {
        assert!(matches("*", ""));
        assert!(matches("a**b", "ab"));
        assert!(!matches("a?", "a"));
        assert!(matches("[!a]x", "bx") && !matches("[!a]x", "ax"));
        assert!(matches("[]a]", "]"));
        assert!(matches("[", "["));
        assert!(matches("\\*", "*") && !matches("\\*", "a"));
        assert!(!matches("abc", "ab") && !matches("ab", "abc"));
        assert!(!matches("*a*a*a*a*a*a*a*a*b", &"a".repeat(2000)));
    }
}
