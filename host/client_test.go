package host

import (
	"openvstorage/alba/cluster"
	"openvstorage/arakoon/kvclient"
	"openvstorage/host/registrykeys"
	"openvstorage/host/treekeys"
)

// ABM, NSM, registry and a mount's tree run on a client as on a member.
var (
	_ cluster.Node      = (*kvclient.Client)(nil)
	_ registrykeys.Node = (*kvclient.Client)(nil)
	_ treekeys.Node     = (*kvclient.Client)(nil)
)
