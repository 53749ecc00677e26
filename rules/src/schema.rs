//! How texts of ours are described to clients of the API: values that serde reads and writes as a string.

/// Describes a type that is a string in JSON, for the API's description: what it is, its pattern and an example.
#[macro_export]
macro_rules! text_schema {
    ($type:ty, $name:literal, $description:literal, $pattern:expr, $example:literal) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                let object = ObjectBuilder::new().schema_type(Type::String).description(Some($description));
                object.pattern(Some($pattern)).examples([$example]).into()
            }
        }
        impl utoipa::ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    };
}

/// Of an option's number that people may set at all, 1 to 254.
pub const OPTION_CODE: &str = "^([1-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-4])$";
/// Of an option's value.
pub const OPTION_VALUE: &str = "^(text:[ -~]{1,200}|hex:([0-9A-Fa-f]{2}){1,200}|u8:(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|u(16|32):[0-9]{1,4}|addresses:(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9]))(,((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){0,9})$";
/// Of a label's key.
pub const LABEL_KEY: &str = "^[A-Za-z0-9._/-]{1,63}$";
/// Of a label's value.
pub const LABEL_VALUE: &str = "^[^\\x00-\\x1f\\x7f-\\x9f]{0,255}$";

use crate::{
    MacAddress,
    assignment::Assignment,
    dhcp::{OptionCode, OptionValue},
    image::{Digest, ImageName, ImageReference},
    metadata::MetadataName,
    profile::ProfileName,
    role::RoleName,
    rule::RuleName,
    secret::SecretName,
    selector::Selector,
    token::{Scope, TokenId, TokenName},
};

text_schema!(
    MacAddress,
    "MacAddress",
    "A MAC address of a network card: six pairs of hex digits with colons, hyphens or nothing between them, neither a \
     group address nor all zero. Answers write it in lower case with colons.",
    "^(?![0:-]+$)[0-9A-Fa-f][02468ACEace]((:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5}|([0-9A-Fa-f]{2}){5})$",
    "52:54:00:12:34:56"
);
text_schema!(
    Digest,
    "Digest",
    "A SHA-256 digest, the identity of an image or of a part of one.",
    "^sha256:[0-9A-Fa-f]{64}$",
    "sha256:4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"
);
text_schema!(
    ImageName,
    "ImageName",
    "A tag, `name:tag`, that points at an image and can be moved. Without a tag it is `latest`. The name has 255 \
     characters at most.",
    "^(?!sha256(:|$))[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$",
    "web:v3"
);
text_schema!(
    ImageReference,
    "ImageReference",
    "An image: by a tag, `name:tag`, or by its digest.",
    "^(sha256:[0-9A-Fa-f]{64}|(?!sha256(:|$))[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?)$",
    "web:v3"
);
text_schema!(
    Assignment,
    "Assignment",
    "What a machine boots: an image, by `name:tag` or by its digest, or `local` for its own disk.",
    "^(local|sha256:[0-9A-Fa-f]{64}|(?!sha256(:|$))[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?)$",
    "web:v3"
);
text_schema!(
    MetadataName,
    "MetadataName",
    "What a metadata document is called.",
    "^[a-z0-9][a-z0-9._-]{0,62}$",
    "web-servers"
);
text_schema!(SecretName, "SecretName", "What a secret is called.", "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "db-password");
text_schema!(RuleName, "RuleName", "What a rule is called.", "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "web-servers");
text_schema!(
    ProfileName,
    "ProfileName",
    "What a hardware profile is called.",
    "^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,61}[A-Za-z0-9._-])?$",
    "Dell PowerEdge"
);
text_schema!(
    RoleName,
    "RoleName",
    "What a role of tokens is called.",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    "ci-builder"
);
text_schema!(TokenId, "TokenId", "What a token is known by; no secret.", "^[0-9a-f]{8}$", "0a1b2c3d");
text_schema!(TokenName, "TokenName", "What people call a token.", "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "ci-builder");
text_schema!(
    Selector,
    "Selector",
    "Which machines, by their labels: requirements with commas between them, such as `rack=r1,role in (web,api),!spare`.",
    "^[A-Za-z0-9._/=!(), -]{0,1000}$",
    "rack=r1"
);
text_schema!(
    Scope,
    "Scope",
    "One thing that a token's bearer may do; `admin` is all of them and whatever else there is.",
    "^(read|assign|images|power|admin)$",
    "read"
);
text_schema!(OptionCode, "OptionCode", "The number of a DHCP option, 1 to 254.", OPTION_CODE, "12");
text_schema!(
    OptionValue,
    "OptionValue",
    "A DHCP option's value with its form: text:…, hex:…, addresses:A,B, u8:N, u16:N or u32:N.",
    OPTION_VALUE,
    "text:web1"
);
