package host

import (
	"context"
	"errors"
	"fmt"

	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon/groups"
	"openvstorage/host/recovery"
	"openvstorage/internal/disk/osdisk"
)

// Recover opens the recovery of a data directory that no process uses. Of the options FS and
// Specs are set here. The caller closes it.
func Recover(ctx context.Context, o recovery.Options) (*recovery.Recovery, error) {
	o.FS, o.Specs = osdisk.New(), allSpecs()
	return recovery.Open(ctx, o)
}

// allSpecs are the groups of a cluster.
func allSpecs() []groups.Spec {
	return append([]groups.Spec{{Name: registryGroup}}, albahere.Specs()...)
}

// waysBack adds to the error of a start that misses groups what a person can do.
func waysBack(err error) error {
	if errors.Is(err, groups.ErrMissing) {
		err = fmt.Errorf("%w; or make all groups anew of a backup: `ovs restore metadata`; or, if only nsm-0 or registry is lost, that one: `ovs recover nsm-0 FILE --from backup`; or, where another host of the cluster holds them, go on there: `ovs recover`", err)
	}
	return err
}
