//! Secrets come from the terminal, unseen, or from a file or pipe; never from the command line, which
//! every user of the host can read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::Path,
};

use crate::failure::Failure;

/// Longest secret that is read, in bytes.
const MAX_LEN: u64 = 4096;

/// Asks for a secret: the first line of `file`, else of what is piped in, else what is typed after
/// `prompt`.
pub(crate) fn read(prompt: &str, file: Option<&Path>) -> Result<String, Failure> {
    Ok(match file {
        Some(path) => first_line(File::open(path).map_err(Failure::of_file(path))?)?,
        None if io::stdin().is_terminal() => rpassword::prompt_password(prompt)?,
        None => first_line(io::stdin())?,
    })
}

/// The same for a secret that was not in use before: a terminal asks twice.
pub(crate) fn choose(prompt: &str, file: Option<&Path>) -> Result<String, Failure> {
    let secret = read(prompt, file)?;
    if file.is_none() && io::stdin().is_terminal() {
        let again = rpassword::prompt_password("The same again: ")?;
        if again != secret {
            return Err(Failure::NotTheSame);
        }
    }
    Ok(secret)
}

fn first_line(source: impl Read) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(source.take(MAX_LEN)).read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c08_a_secret_is_the_first_line_without_its_end() {
        for (content, expected) in
            [("pass phrase\nmore\n", "pass phrase"), (" spaces \r\n", " spaces "), ("", "")]
        {
            assert_eq!(first_line(content.as_bytes()).unwrap(), expected);
        }
        let missing = read("", Some(Path::new("/nowhere/at-all"))).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/at-all"), "{missing}");
    }
}
