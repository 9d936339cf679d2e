//! Tokens that open one workspace: JWTs, signed with Ed25519 and nothing else.
//!
//! Made by who runs the workspace, verified inside it without asking anyone. The time comes in as a value; who may do
//! what with a role is decided where requests are answered.

use std::fmt;
use std::str::FromStr;
use std::sync::Once;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// The cookie that carries a token.
pub const COOKIE: &str = "workshop_token";
/// The longest token, in bytes; ours are below 500.
pub const MAX_BYTES: usize = 4096;
/// How far the signer's clock may be ahead, in seconds.
const CLOCK_SKEW: i64 = 60;

/// A secret that nobody guesses: 32 of the system's random bytes as base64url without padding.
///
/// # Panics
/// Where the system has no random numbers, without which nothing secret can be made.
#[must_use]
pub fn generate_secret() -> String {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random numbers");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What the bearer is in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Works in it.
    Learner,
    /// Helps in it, and is not bound by gates.
    Instructor,
    /// The workspace itself, towards those who run it.
    Workspace,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The instance's uid.
    pub aud: String,
    /// The person or seat.
    pub sub: String,
    /// What they are there.
    pub role: Role,
    /// Raised to make all older tokens of an instance invalid.
    pub generation: i64,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// From when on it is invalid, in seconds since 1970.
    pub exp: i64,
}

/// Why a token or a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No compact JWS of at most [`MAX_BYTES`] with the claims of this platform.
    #[error("the token is malformed")]
    Malformed,
    /// Another algorithm than EdDSA, or a header that demands what is not understood.
    #[error("the token is not signed with EdDSA alone")]
    Algorithm,
    /// Signed with another key, or changed.
    #[error("the token's signature does not hold")]
    Signature,
    /// For another instance.
    #[error("the token is for another workspace")]
    Audience,
    /// Of a generation that was withdrawn.
    #[error("the token was withdrawn")]
    Generation,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Signed in the future, or with an end before its beginning.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// No Ed25519 key.
    #[error("the key is no Ed25519 key in its due form")]
    Key,
}

/// A private Ed25519 key.
#[derive(Clone)]
pub struct SigningKey {
    pkcs8: Vec<u8>,
    public: [u8; 32],
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey(of {})", self.verify_key())
    }
}

impl SigningKey {
    /// A new key from the system's random numbers.
    ///
    /// # Panics
    /// Where the system has no random numbers, without which nothing secret can be made.
    #[must_use]
    pub fn generate() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system gives random numbers");
        Self::from_pkcs8(document.as_ref()).expect("a key pair that was just made reads back")
    }

    /// Reads the PKCS#8 form; one without the public key is taken too.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, TokenError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(|_| TokenError::Key)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| TokenError::Key)?;
        Ok(Self { pkcs8: bytes.to_vec(), public })
    }

    /// The PKCS#8 form.
    #[must_use]
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    #[must_use]
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.public)
    }

    /// The token that says `claims`.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        install_provider();
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &EncodingKey::from_ed_der(&self.pkcs8))
            .expect("claims are JSON, and the key was read when it came in")
    }
}

/// A public Ed25519 key; as text the base64url of its 32 bytes without padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyKey([u8; 32]);

impl fmt::Display for VerifyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "VerifyKey({self})")
    }
}

impl FromStr for VerifyKey {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Key)?;
        bytes.try_into().map(Self).map_err(|_| TokenError::Key)
    }
}

impl VerifyKey {
    /// What `token` says, if it is signed with this key's other half, for `audience`, of `generation` or a later one,
    /// and valid at `now` (seconds since 1970).
    pub fn verify(&self, token: &str, audience: &str, generation: i64, now: i64) -> Result<Claims, TokenError> {
        if token.len() > MAX_BYTES || token.bytes().filter(|&byte| byte == b'.').count() != 2 {
            return Err(TokenError::Malformed);
        }
        install_provider();
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The claims are checked below: the crate would ask its own clock, and forgive a minute.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_ed_der(&self.0);
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
            _ => header_error(token),
        })?;
        // An extension that must be understood is none of ours.
        if decoded.header.crit.is_some() || decoded.header.enc.is_some() || decoded.header.zip.is_some() {
            return Err(TokenError::Algorithm);
        }
        let claims = decoded.claims;
        if claims.aud != audience {
            return Err(TokenError::Audience);
        }
        if claims.generation < generation {
            return Err(TokenError::Generation);
        }
        if now >= claims.exp {
            return Err(TokenError::Expired);
        }
        if claims.iat > now.saturating_add(CLOCK_SKEW) || claims.iat >= claims.exp {
            return Err(TokenError::NotYetValid);
        }
        Ok(claims)
    }
}

/// A header with an algorithm that the crate does not even know, such as `none`, is read as malformed by it.
fn header_error(token: &str) -> TokenError {
    #[derive(Deserialize)]
    struct Named {
        alg: String,
    }
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let named = header.and_then(|header| serde_json::from_slice::<Named>(&header).ok());
    if named.is_some_and(|named| named.alg != "EdDSA") { TokenError::Algorithm } else { TokenError::Malformed }
}

/// The crate takes its cryptography from a provider of the whole process; ours is ring, and knows Ed25519 only.
fn install_provider() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| match algorithm {
            Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes())
                .map(|pair| Box::new(RingSigner(pair)) as Box<dyn JwtSigner>)
                .map_err(|_| ErrorKind::InvalidEddsaKey.into()),
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        },
        verifier_factory: |algorithm, key| match algorithm {
            Algorithm::EdDSA => Ok(Box::new(RingVerifier(key.try_get_as_bytes()?.to_vec())) as Box<dyn JwtVerifier>),
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    // The first one stays; nothing else of this program installs one.
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

struct RingSigner(Ed25519KeyPair);

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct RingVerifier(Vec<u8>);

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of RFC 8037, appendix A.
    const SECRET: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn key() -> SigningKey {
        let secret = URL_SAFE_NO_PAD.decode(SECRET).unwrap();
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        SigningKey::from_pkcs8(&[&prefix[..], &secret].concat()).unwrap()
    }

    fn claims() -> Claims {
        let (aud, sub) = ("uid-1".to_owned(), "alice".to_owned());
        Claims { aud, sub, role: Role::Learner, generation: 2, iat: 1_000, exp: 2_000 }
    }

    /// A token of any header and payload, signed with the right key.
    fn signed(header: &str, payload: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key().to_pkcs8()).unwrap();
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn check(token: &str, expected: Result<(), TokenError>) {
        assert_eq!(key().verify_key().verify(token, "uid-1", 2, 1_500).map(|_| ()), expected, "{token}");
    }

    #[test]
    fn the_key_of_rfc_8037_signs_its_example() {
        let key = key();
        assert_eq!(key.verify_key().to_string(), PUBLIC);
        assert_eq!(PUBLIC.parse(), Ok(key.verify_key()));
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.to_pkcs8()).unwrap();
        let signature = pair.sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc");
        assert_eq!(
            URL_SAFE_NO_PAD.encode(signature),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    #[test]
    fn a_signed_token_says_what_was_signed() {
        let token = key().sign(&claims());
        assert_eq!(key().verify_key().verify(&token, "uid-1", 2, 1_500), Ok(claims()));
        assert_eq!(key().verify_key().verify(&token, "uid-1", 1, 1_999), Ok(claims()));
        let generated = SigningKey::generate();
        let again = SigningKey::from_pkcs8(generated.to_pkcs8()).unwrap();
        assert_eq!(generated.verify_key(), again.verify_key());
        assert!(!format!("{generated:?}").contains(&URL_SAFE_NO_PAD.encode(&generated.to_pkcs8()[16..48])));
    }

    #[test]
    fn another_audience_generation_time_or_key_is_refused() {
        let refused = |change: fn(&mut Claims)| {
            let mut changed = claims();
            change(&mut changed);
            key().verify_key().verify(&key().sign(&changed), "uid-1", 2, 1_500).map(|_| ())
        };
        assert_eq!(refused(|it| it.aud = "uid-10".into()), Err(TokenError::Audience));
        assert_eq!(refused(|it| it.generation = 1), Err(TokenError::Generation));
        assert_eq!(refused(|it| it.generation = 3), Ok(()));
        assert_eq!(refused(|it| it.exp = 1_500), Err(TokenError::Expired));
        assert_eq!(refused(|it| it.exp = 1_501), Ok(()));
        assert_eq!(refused(|it| it.iat = 1_560), Ok(()));
        assert_eq!(refused(|it| it.iat = 1_561), Err(TokenError::NotYetValid));
        assert_eq!(refused(|it| it.exp = i64::MIN), Err(TokenError::Expired));
        check(&SigningKey::generate().sign(&claims()), Err(TokenError::Signature));
    }

    #[test]
    fn only_eddsa_is_an_algorithm() {
        let payload = serde_json::to_string(&claims()).unwrap();
        check(&signed(r#"{"alg":"EdDSA"}"#, &payload), Ok(()));
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"eddsa"}"#,
        ] {
            check(&signed(header, &payload), Err(TokenError::Algorithm));
        }
        for header in [
            r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#,
            r#"{"alg":"EdDSA","crit":[]}"#,
            r#"{"alg":"EdDSA","zip":"DEF"}"#,
        ] {
            check(&signed(header, &payload), Err(TokenError::Algorithm));
        }
        // The classic: no algorithm and no signature, or the public key as an HMAC secret.
        let unsigned = signed(r#"{"alg":"none"}"#, &payload);
        check(&unsigned[..=unsigned.rfind('.').unwrap()], Err(TokenError::Algorithm));
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let token = key().sign(&claims());
        let header = r#"{"alg":"EdDSA"}"#;
        for text in
            [String::new(), "..".into(), "a.b".into(), format!("{token}.x"), format!("{token}="), "é.é.é".into()]
        {
            check(&text, Err(TokenError::Malformed));
        }
        for payload in ["{}", "[]", r#"{"aud":["uid-1"],"sub":"a","role":"learner","generation":2,"iat":1,"exp":9}"#] {
            check(&signed(header, payload), Err(TokenError::Malformed));
        }
        let twice =
            r#"{"aud":"uid-1","sub":"a","role":"learner","role":"instructor","generation":2,"iat":1,"exp":9000}"#;
        check(&signed(header, twice), Err(TokenError::Malformed));
        check(&"a".repeat(MAX_BYTES + 1), Err(TokenError::Malformed));
        assert_eq!("11qYAYKxCrfVS".parse::<VerifyKey>(), Err(TokenError::Key));
        assert!(SigningKey::from_pkcs8(b"").is_err());
    }

    proptest! {
        #[test]
        fn a_token_with_any_character_changed_opens_nothing(at in 0usize..300, with in "[A-Za-z0-9_.-]") {
            let token = key().sign(&claims());
            let at = at % token.len();
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            // The last character of a base64 text has bits that must be zero, so no two texts mean the same.
            prop_assert_eq!(key().verify_key().verify(&changed, "uid-1", 2, 1_500).is_ok(), changed == token);
        }

        #[test]
        fn no_text_panics(text in "(?s).{0,200}") {
            prop_assert!(key().verify_key().verify(&text, "uid-1", 2, 1_500).is_err());
        }

        #[test]
        fn any_claims_come_back(aud in ".{0,20}", sub in ".{0,20}", generation in 0..9i64, iat in 0..1_000i64) {
            let said = Claims { aud: aud.clone(), sub, role: Role::Instructor, generation, iat, exp: 5_000 };
            prop_assert_eq!(key().verify_key().verify(&key().sign(&said), &aud, 0, 1_000), Ok(said));
        }
    }
}
