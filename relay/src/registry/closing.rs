//! Closes a code that was used in a time of which the registry knows nothing.

use towpath_transfer::{beside::beside, digest::Sha256Digest, failure::Result};

use super::{Registry, commit, db};

impl Registry {
    /// Lets a code that nobody has used expire now, and says whether it was open until then.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn close_code(&self, secret: &Sha256Digest) -> Result<bool> {
        beside(async {
            let mut tx = self.begin().await?;
            let done =
                sqlx::query("UPDATE enrolments SET expires = ?1 WHERE secret_sha256 = ?2 AND used_key IS NULL AND expires > ?1")
                    .bind(self.now())
                    .bind(secret.to_string())
                    .execute(&mut *tx)
                    .await
                    .map_err(db("close an enrolment code"))?;
            commit(tx).await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }
}
