package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon/groups"
	"openvstorage/host/recovery"
	"openvstorage/internal/disk/osdisk"
)

// Recover opens the recovery of a data directory that no process uses: of the groups that are
// named, or of all. The caller closes it.
func Recover(ctx context.Context, dir string, names []string, logger *slog.Logger) (*recovery.Recovery, error) {
	return recovery.Open(ctx, recovery.Options{FS: osdisk.New(), Dir: dir, Groups: names, Specs: allSpecs(), Logger: logger})
}

// allSpecs are the groups of a cluster.
func allSpecs() []groups.Spec {
	return append([]groups.Spec{{Name: registryGroup}}, albahere.Specs()...)
}

// waysBack adds to the error of a start that misses groups what a person can do.
func waysBack(err error) error {
	if errors.Is(err, groups.ErrMissing) {
		err = fmt.Errorf("%w; or make all groups anew of a backup: `ovs restore metadata`; or, where another host of the cluster holds them, go on there: `ovs recover`", err)
	}
	return err
}
