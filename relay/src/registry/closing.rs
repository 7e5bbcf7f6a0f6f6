//! Closes codes: one that the operator withdraws, and one that was used in a time of which the registry knows nothing.

use towpath_transfer::{AgentName, Code, Failure, beside::beside, digest::Sha256Digest, failure::Result};

use super::{Registry, commit, db, parsed};
use crate::scope::TenantScope;

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

    /// What is kept of the code by which somebody may still become the end of this name; `None` where there is none that is good.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn open_code(&self, scope: &TenantScope, name: &AgentName) -> Result<Option<Sha256Digest>> {
        beside(async {
            let sql = "SELECT secret_sha256 FROM enrolments WHERE tenant = ? AND name = ? AND used_key IS NULL AND expires > ?";
            let found: Option<String> = sqlx::query_scalar(sql)
                .bind(scope.tenant().as_str())
                .bind(name.as_str())
                .bind(self.now())
                .fetch_optional(&self.pool)
                .await
                .map_err(db("look for an enrolment code"))?;
            found.map(|digest| parsed("a digest", &digest)).transpose()
        })
        .await
    }

    /// Forgets the code by which somebody may still become the end of this name. The name is free again: nobody has had it.
    ///
    /// # Errors
    /// [`Code::NotFound`] where no such code is good any more, with what to do where it was used; [`Code::FileFailed`].
    pub async fn revoke_code(&self, scope: &TenantScope, name: &AgentName) -> Result<()> {
        beside(async {
            let mut tx = self.begin().await?;
            let done = sqlx::query("DELETE FROM enrolments WHERE tenant = ? AND name = ? AND used_key IS NULL AND expires > ?")
                .bind(scope.tenant().as_str())
                .bind(name.as_str())
                .bind(self.now())
                .execute(&mut *tx)
                .await
                .map_err(db("revoke an enrolment code"))?;
            if done.rows_affected() == 0 {
                let why = match self.end_in(&mut tx, scope, name).await? {
                    Some(_) => format!(
                        "the one for it was used; to revoke the end itself: towpath-relay agent revoke --tenant {scope} {name}"
                    ),
                    None => format!("see `towpath-relay enrolment list --tenant {scope}`"),
                };
                let message = format!("tenant {scope} has no enrolment code for {name} that is good still: {why}");
                return Err(Failure::park(Code::NotFound, message));
            }
            self.commit_noted(tx).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::api::Role;

    use super::super::tests::{Fixture, request};
    use super::*;

    #[tokio::test]
    async fn a_code_that_was_revoked_enrols_nobody_and_its_name_is_free_again() {
        let fixture = Fixture::in_memory().await;
        let name: AgentName = "erp".parse().unwrap();
        let lost = fixture.code(Role::Agent, Some("erp")).await.unwrap();
        let digest = Sha256Digest::of(lost.secret.as_bytes());
        assert_eq!(fixture.registry.open_code(&fixture.scope, &name).await.unwrap(), Some(digest));
        fixture.registry.revoke_code(&fixture.scope, &name).await.unwrap();
        let refused = fixture.registry.redeem(&request(&lost, &fixture.identity())).await.unwrap_err();
        assert_eq!(refused.code(), Code::EnrolmentUnknown);
        assert_eq!(fixture.registry.open_code(&fixture.scope, &name).await.unwrap(), None);
        assert!(fixture.registry.enrolments(&fixture.scope, 10).await.unwrap().is_empty());
        let again = fixture.registry.revoke_code(&fixture.scope, &name).await.unwrap_err();
        assert!(again.code() == Code::NotFound && again.message().contains("enrolment list --tenant acme"), "{again}");

        let next = fixture.code(Role::Agent, Some("erp")).await.unwrap();
        fixture.registry.redeem(&request(&next, &fixture.identity())).await.unwrap();
        let used = fixture.registry.revoke_code(&fixture.scope, &name).await.unwrap_err();
        assert!(used.code() == Code::NotFound && used.message().contains("agent revoke --tenant acme erp"), "{used}");
        assert_eq!(fixture.registry.ends(&fixture.scope).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn only_a_code_of_this_tenant_and_name_is_revoked() {
        let fixture = Fixture::in_memory().await;
        let (erp, name) = (fixture.code(Role::Agent, Some("erp")).await.unwrap(), "erp".parse().unwrap());
        let other = fixture.registry.create_tenant(&"other".parse().unwrap(), None).await.unwrap();
        for (scope, name) in [(&other, &name), (&fixture.scope, &"erp-2".parse().unwrap())] {
            assert_eq!(fixture.registry.revoke_code(scope, name).await.unwrap_err().code(), Code::NotFound);
        }
        fixture.registry.redeem(&request(&erp, &fixture.identity())).await.unwrap();
    }

    #[tokio::test]
    async fn a_code_that_was_revoked_stays_so_in_a_registry_that_knows_nothing_of_it() {
        let fixture = Fixture::in_memory().await;
        let lost = fixture.code(Role::Agent, Some("erp")).await.unwrap();
        let digest = Sha256Digest::of(lost.secret.as_bytes());
        assert!(fixture.registry.close_code(&digest).await.unwrap());
        let refused = fixture.registry.redeem(&request(&lost, &fixture.identity())).await.unwrap_err();
        assert_eq!(refused.code(), Code::EnrolmentExpired);
        assert_eq!(
            fixture.registry.open_code(&fixture.scope, &"erp".parse().unwrap()).await.unwrap(),
            None,
            "there is nothing left to revoke"
        );
    }
}
