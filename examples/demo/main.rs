//! temporary
mod cluster;
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = cluster::server::start().await?;
    cluster::server::write_kubeconfig(std::path::Path::new("/tmp/demo-kubeconfig"), address)?;
    println!("{address}");
    std::future::pending().await
}
