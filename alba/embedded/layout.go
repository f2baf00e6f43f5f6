package embedded

import (
	"path"
	"strings"

	"github.com/google/uuid"
)

// layout translates between the directories of ASDs and the endpoints under which
// the ABM records them. An endpoint is relative to the data directory if the ASD lies
// in it, so that the data directory can be moved, and absolute otherwise.
type layout struct {
	dir string    // data directory
	id  uuid.UUID // of the backend
}

// path is the directory of an endpoint.
func (l layout) path(endpoint string) string {
	if path.IsAbs(endpoint) {
		return endpoint
	}
	return path.Join(l.dir, endpoint)
}

// endpoint is how a directory is recorded.
func (l layout) endpoint(dir string) string {
	if rest, ok := strings.CutPrefix(dir, l.dir+"/"); ok {
		return rest
	}
	return dir
}

// node is the name of this machine to placement. All disks of a data directory are on
// one machine.
func (l layout) node() string { return l.id.String() }
