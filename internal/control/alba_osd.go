package control

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// OSD is a disk.
type OSD struct {
	Number uint64     `json:"number"`
	ID     uuid.UUID  `json:"id"`
	Dir    string     `json:"dir"`
	Node   string     `json:"node"`
	State  string     `json:"state"`
	Reason string     `json:"reason,omitempty"`
	Since  *time.Time `json:"since,omitempty"` // when that was first seen, if it is known
	Used   uint64     `json:"used"`
	// Capacity is what the disk holds and what its file system has left, in bytes.
	// Others on that file system may take that too: see FileSystem.
	Capacity uint64 `json:"capacity"`
	// FileSystem names the file system that the disk is on, "" if it is not known. Disks
	// with the same one share its room.
	FileSystem string `json:"file_system,omitempty"`
	Fragments  uint64 `json:"fragments"` // of objects
	Bytes      uint64 `json:"bytes"`     // of those
	Obsolete   uint64 `json:"obsolete"`  // fragments that are to be deleted
	Replaces   uint64 `json:"replaces,omitempty"`
	Reads      uint64 `json:"reads"` // since the start
	Writes     uint64 `json:"writes"`
	Errors     uint64 `json:"errors"`
	Refused    uint64 `json:"refused"` // writes for which there was no room; they are no errors
	Corrupt    uint64 `json:"corrupt"`
	Scrub      *Scrub `json:"scrub,omitempty"`
}

// Disks are the disks of the backend.
type Disks interface {
	OSDs(ctx context.Context) ([]OSD, error)
	OSD(ctx context.Context, number uint64) (OSD, error)
	CheckPlace(dir string) error // of a disk to be added
	AddOSD(ctx context.Context, dir string) (uint64, error)
	ReplaceOSD(ctx context.Context, number uint64, dir string) (uint64, error)
	RemoveOSD(ctx context.Context, number uint64) error
}

type osdRequest struct {
	Number uint64 `json:"number,omitempty"`
	Dir    string `json:"dir,omitempty"` // absolute; "": the server's choice
	// AllowUnmounted takes a directory that looks like a mount point with nothing
	// mounted.
	AllowUnmounted bool `json:"allow_unmounted,omitempty"`
}

func (s *Server) osdRoutes(mux *http.ServeMux) {
	type none = struct{}
	handleALBA(s, mux, "osd/list", func(a albaServer, ctx context.Context, _ none) ([]OSD, error) { return a.OSDs(ctx) })
	handleALBA(s, mux, "osd/show", func(a albaServer, ctx context.Context, r osdRequest) (OSD, error) {
		o, err := a.OSD(ctx, r.Number)
		return o, advise(err, "see `ovs alba osd list`")
	})
	handleALBA(s, mux, "osd/add", albaServer.addOSD)
	handleALBA(s, mux, "osd/replace", albaServer.replaceOSD)
	handleALBA(s, mux, "osd/remove", func(a albaServer, ctx context.Context, r osdRequest) (done, error) {
		return done{}, advise(a.RemoveOSD(ctx, r.Number), "see `ovs alba osd list`")
	})
}

// checkPlace refuses a directory that looks like a mount point with nothing mounted.
func (a albaServer) checkPlace(dir string, allow bool) error {
	if allow {
		return nil
	}
	return a.CheckPlace(dir)
}

func (a albaServer) addOSD(ctx context.Context, r osdRequest) (OSD, error) {
	if err := a.checkPlace(r.Dir, r.AllowUnmounted); err != nil {
		return OSD{}, err
	}
	number, err := a.AddOSD(ctx, r.Dir)
	if err != nil {
		return OSD{}, err
	}
	return a.OSD(ctx, number)
}

func (a albaServer) replaceOSD(ctx context.Context, r osdRequest) (OSD, error) {
	dir := r.Dir
	if dir == "" { // where the old one is
		if old, err := a.OSD(ctx, r.Number); err == nil {
			dir = old.Dir
		}
	}
	if err := a.checkPlace(dir, r.AllowUnmounted); err != nil {
		return OSD{}, err
	}
	number, err := a.ReplaceOSD(ctx, r.Number, r.Dir)
	if err != nil {
		return OSD{}, advise(err, "see `ovs alba osd list`")
	}
	return a.OSD(ctx, number)
}

// OSDs returns all disks, in order of number.
func (c *Client) OSDs(ctx context.Context) ([]OSD, error) {
	return call[[]OSD](ctx, c, "alba/osd/list", struct{}{}, nil)
}

// OSD returns one disk.
func (c *Client) OSD(ctx context.Context, number uint64) (OSD, error) {
	return call[OSD](ctx, c, "alba/osd/show", osdRequest{Number: number}, nil)
}

// AddOSD makes an ASD in an empty directory, given by its absolute path, and takes it
// into the backend. "" is the next directory in the data directory. A directory that
// looks like a mount point with nothing mounted is refused unless allowUnmounted is set.
func (c *Client) AddOSD(ctx context.Context, dir string, allowUnmounted bool) (OSD, error) {
	return call[OSD](ctx, c, "alba/osd/add", osdRequest{Dir: dir, AllowUnmounted: allowUnmounted}, nil)
}

// ReplaceOSD gives a missing disk up for good, and takes a new one in its place, in an
// empty directory given by its absolute path. "" is the directory of the old one. A
// directory that looks like a mount point with nothing mounted is refused unless
// allowUnmounted is set.
func (c *Client) ReplaceOSD(ctx context.Context, number uint64, dir string, allowUnmounted bool) (OSD, error) {
	return call[OSD](ctx, c, "alba/osd/replace", osdRequest{Number: number, Dir: dir, AllowUnmounted: allowUnmounted}, nil)
}

// RemoveOSD begins to move a disk's fragments to other disks. When all are moved the
// disk is forgotten. RemoveOSD does not wait for that.
func (c *Client) RemoveOSD(ctx context.Context, number uint64) error {
	_, err := call[done](ctx, c, "alba/osd/remove", osdRequest{Number: number}, nil)
	return err
}
