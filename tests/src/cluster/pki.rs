//! The certificates of a cluster, and the kubeconfigs that use them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::command::{make_folder, run, write};
use super::site::Site;

/// openssl's own defaults would make every certificate one of an authority.
const CONFIG: &str = "[req]\ndistinguished_name = subject\n[subject]\n";
const DAYS: &str = "30";

/// A certificate authority in a folder.
#[derive(Debug)]
pub(super) struct Pki {
    folder: PathBuf,
}

impl Pki {
    pub(super) fn of(site: &Site) -> Self {
        Self {
            folder: site.path("pki"),
        }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the authority, the API server's certificate and the key for service account tokens.
    pub(super) fn make(&self, site: &Site) -> Result<()> {
        make_folder(&self.folder)?;
        write(&self.file("openssl.cnf"), CONFIG)?;
        self.request(
            "ca",
            "/CN=vd-test-ca",
            &["basicConstraints=critical,CA:TRUE"],
            false,
        )?;
        let names = format!(
            "subjectAltName=IP:{},IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
             DNS:kubernetes.default.svc",
            site.network.apiserver()
        );
        self.request("apiserver", "/CN=kube-apiserver", &[&names], true)?;
        self.issue(
            "kubelet-client",
            "/O=system:masters/CN=kube-apiserver-kubelet-client",
        )?;
        let (key, public) = (self.file("tokens.key"), self.file("tokens.pub"));
        let curve = [
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
        ];
        let _quiet = run("openssl", &arguments(&curve, &[&key]))?;
        let _quiet = run(
            "openssl",
            &[
                Path::new("pkey"),
                "-pubout".as_ref(),
                "-in".as_ref(),
                &key,
                "-out".as_ref(),
                &public,
            ],
        )?;
        Ok(())
    }

    /// A certificate for `subject` (`/O=group/CN=user`): `name`.crt and `name`.key.
    pub(super) fn issue(&self, name: &str, subject: &str) -> Result<()> {
        self.request(name, subject, &[], true)
    }

    fn request(&self, name: &str, subject: &str, extensions: &[&str], signed: bool) -> Result<()> {
        let file = |ending: &str| self.file(&format!("{name}.{ending}"));
        let words = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            DAYS,
            "-subj",
            subject,
            "-config",
        ];
        let mut all = arguments(&words, &[&self.file("openssl.cnf")]);
        all.extend(arguments(&["-keyout"], &[&file("key")]));
        all.extend(arguments(&["-out"], &[&file("crt")]));
        for extension in extensions {
            all.extend(arguments(&["-addext", extension], &[]));
        }
        if signed {
            all.extend(arguments(&["-CA"], &[&self.file("ca.crt")]));
            all.extend(arguments(&["-CAkey"], &[&self.file("ca.key")]));
        }
        let _quiet = run("openssl", &all)?;
        Ok(())
    }

    /// Issues a certificate for `subject` and writes a kubeconfig with it to `path`.
    pub(super) fn kubeconfig(
        &self,
        site: &Site,
        name: &str,
        subject: &str,
        path: &Path,
    ) -> Result<()> {
        self.issue(name, subject)?;
        let text = kubeconfig(&site.url(), name, &self.folder);
        write(path, text)
    }
}

/// A kubeconfig that finds `ca.crt`, `name`.crt and `name`.key in the folder `pki`.
pub(super) fn kubeconfig(url: &str, name: &str, pki: &Path) -> String {
    let pki = pki.display();
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: vd\n  \
           cluster: {{server: \"{url}\", certificate-authority: \"{pki}/ca.crt\"}}\n\
         users:\n\
         - name: {name}\n  \
           user: {{client-certificate: \"{pki}/{name}.crt\", client-key: \"{pki}/{name}.key\"}}\n\
         contexts:\n\
         - name: vd\n  \
           context: {{cluster: vd, user: {name}}}\n\
         current-context: vd\n"
    )
}

fn arguments(words: &[&str], paths: &[&Path]) -> Vec<PathBuf> {
    let words = words.iter().map(PathBuf::from);
    words
        .chain(paths.iter().map(|path| path.to_path_buf()))
        .collect()
}
