//! Makes cargo embed the pages anew when `web/dist` changed; it builds nothing and needs no Node.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=web/dist");
}
