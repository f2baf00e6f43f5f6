package embedded

import (
	"path"
	"slices"
	"strings"

	"openvstorage/alba/abm"

	"github.com/google/uuid"
)

// layout translates between the directories of ASDs and the endpoints under which
// the ABM records them. An endpoint is relative to the data directory if the ASD lies
// in it, so that the data directory can be moved, and absolute otherwise.
type layout struct {
	dir  string    // data directory
	id   uuid.UUID // of the backend
	host uuid.UUID // whose data directory it is; zero: that of the host that made the backend
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
func (l layout) node() string {
	if l.host != uuid.Nil {
		return l.host.String()
	}
	return l.id.String()
}

// own tells whether a node is this machine.
func (l layout) own(node string) bool { return node == l.node() }

// where is how people are told where a disk is. The directory of another host's disk that
// is in that host's data directory is told from there.
func (l layout) where(node, endpoint string) string {
	if l.own(node) || path.IsAbs(endpoint) {
		return l.path(endpoint)
	}
	return path.Join("DIR", endpoint)
}

// mine are the disks of this machine.
func (l layout) mine(all []abm.OSD) []abm.OSD {
	return slices.DeleteFunc(slices.Clone(all), func(o abm.OSD) bool { return !l.own(o.Node) })
}
