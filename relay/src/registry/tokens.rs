//! The ids of tokens that were used, so that none is used twice.

use std::time::Duration;

use towpath_keys::TokenClaims;
use towpath_transfer::{Code, Failure, beside::beside, failure::Result};

use super::{Registry, commit, db};

/// The most tokens of one end that are used but not yet void: about 30 calls a second.
pub const MAX_LIVE_TOKENS: i64 = 2_000;
/// How long an end that has used up its tokens is asked to wait.
const PAUSE: Duration = Duration::from_secs(10);

impl Registry {
    pub(super) async fn take_token(&self, claims: &TokenClaims, leeway: Duration) -> Result<()> {
        beside(async {
            let void = claims.expires_at.saturating_add(leeway).unwrap_or(jiff::Timestamp::MAX).as_microsecond();
            let mut tx = self.begin().await?;
            let live: i64 = sqlx::query_scalar("SELECT count(*) FROM used_tokens WHERE issuer = ? AND expires > ?")
                .bind(&claims.issuer)
                .bind(self.now())
                .fetch_one(&mut *tx)
                .await
                .map_err(db("count an end's tokens"))?;
            if live >= MAX_LIVE_TOKENS {
                return Err(Failure::retry(Code::RateLimited, "too many calls within a minute").after(PAUSE));
            }
            let taken = sqlx::query("INSERT INTO used_tokens (issuer, id, expires) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                .bind(&claims.issuer)
                .bind(&claims.id)
                .bind(void)
                .execute(&mut *tx)
                .await
                .map_err(db("note a used token"))?;
            if taken.rows_affected() == 0 {
                return Err(Failure::park(Code::AuthenticationRefused, "the token was used before"));
            }
            commit(tx).await
        })
        .await
    }

    /// Forgets tokens that are void anyway, and returns how many.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn prune_tokens(&self) -> Result<u64> {
        beside(async {
            let mut tx = self.begin().await?;
            let done = sqlx::query("DELETE FROM used_tokens WHERE expires <= ?")
                .bind(self.now())
                .execute(&mut *tx)
                .await
                .map_err(db("forget used tokens"))?;
            commit(tx).await?;
            Ok(done.rows_affected())
        })
        .await
    }
}
