package control

import (
	"context"
	"encoding/json"
)

// Those who ask a data directory without ALBA get an error that matches
// ErrInvalid and says so. A namespace may be named by its vDisk too.

// BackendStatus returns how the backend is.
func (c *Client) BackendStatus(ctx context.Context) (BackendStatus, error) {
	return call[BackendStatus](ctx, c, "alba/status", struct{}{}, nil)
}

// BackendCheck compares what the managers know with what is on the disks. It
// changes nothing.
func (c *Client) BackendCheck(ctx context.Context) (Check, error) {
	return call[Check](ctx, c, "alba/check", struct{}{}, nil)
}

// ResumeDeletion lets deletion on disks go on, if the check passes.
func (c *Client) ResumeDeletion(ctx context.Context) (Check, error) {
	return call[Check](ctx, c, "alba/resume-deletion", struct{}{}, nil)
}

// OSDs returns all disks, in order of number.
func (c *Client) OSDs(ctx context.Context) ([]OSD, error) {
	return call[[]OSD](ctx, c, "alba/osd/list", struct{}{}, nil)
}

// OSD returns one disk.
func (c *Client) OSD(ctx context.Context, number uint64) (OSD, error) {
	return call[OSD](ctx, c, "alba/osd/show", osdRequest{Number: number}, nil)
}

// AddOSD makes an ASD in an empty directory, an absolute path, and takes it into
// the backend; "" is the next one in the data directory. One that looks like a mount
// point with nothing mounted is refused unless that is allowed.
func (c *Client) AddOSD(ctx context.Context, dir string, allowUnmounted bool) (OSD, error) {
	return call[OSD](ctx, c, "alba/osd/add", osdRequest{Dir: dir, AllowUnmounted: allowUnmounted}, nil)
}

// ReplaceOSD gives a missing disk up for good and takes a new one for it, in an
// empty directory, an absolute path; "" is where the old one was. One that looks
// like a mount point with nothing mounted is refused unless that is allowed.
func (c *Client) ReplaceOSD(ctx context.Context, number uint64, dir string, allowUnmounted bool) (OSD, error) {
	return call[OSD](ctx, c, "alba/osd/replace", osdRequest{Number: number, Dir: dir, AllowUnmounted: allowUnmounted}, nil)
}

// RemoveOSD has a disk's fragments moved to others, after which it is forgotten.
// It does not wait for that.
func (c *Client) RemoveOSD(ctx context.Context, number uint64) error {
	_, err := call[done](ctx, c, "alba/osd/remove", osdRequest{Number: number}, nil)
	return err
}

// Namespaces returns all namespaces, in order of name, without what only
// Namespace tells.
func (c *Client) Namespaces(ctx context.Context) ([]Namespace, error) {
	return call[[]Namespace](ctx, c, "alba/namespace/list", struct{}{}, nil)
}

// Namespace returns one namespace.
func (c *Client) Namespace(ctx context.Context, name string) (Namespace, error) {
	return call[Namespace](ctx, c, "alba/namespace/show", nameRequest{Name: name}, nil)
}

// Objects returns the first objects, 1000 at most, of a namespace whose names
// begin with prefix and are above after.
func (c *Client) Objects(ctx context.Context, namespace, prefix, after string, limit int) (ObjectPage, error) {
	return call[ObjectPage](ctx, c, "alba/object/list", objectRequest{Namespace: namespace, Prefix: prefix, After: after, Limit: limit}, nil)
}

// Object returns an object, with its fragments and how they are.
func (c *Client) Object(ctx context.Context, namespace, name string) (Object, error) {
	return call[Object](ctx, c, "alba/object/show", objectRequest{Namespace: namespace, Name: name}, nil)
}

// Manifest returns an object's encoded manifest.
func (c *Client) Manifest(ctx context.Context, namespace, name string) ([]byte, error) {
	return call[[]byte](ctx, c, "alba/object/manifest", objectRequest{Namespace: namespace, Name: name}, nil)
}

// Presets returns all presets, in order of name.
func (c *Client) Presets(ctx context.Context) ([]Preset, error) {
	return call[[]Preset](ctx, c, "alba/preset/list", struct{}{}, nil)
}

// CreatePreset makes a preset of JSON, the default one of vDisks to come if asDefault.
func (c *Client) CreatePreset(ctx context.Context, preset json.RawMessage, asDefault bool) error {
	_, err := call[done](ctx, c, "alba/preset/create", presetRequest{Preset: preset, Default: asDefault}, nil)
	return err
}

// DeletePreset deletes a preset that no vDisk has and that is not the default.
func (c *Client) DeletePreset(ctx context.Context, name string) error {
	_, err := call[done](ctx, c, "alba/preset/delete", nameRequest{Name: name}, nil)
	return err
}
