package volumedriver

import "openvstorage/internal/disk"

// OpenForTest opens vDisks over the local backend, all on one disk.
func OpenForTest(fs disk.FS) (h *Host, stop func() error, err error) {
	r, err := openRig(fs, nil)
	if err != nil {
		return nil, nil, err
	}
	return r.host, r.close, nil
}
