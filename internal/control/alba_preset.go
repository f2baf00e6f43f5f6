package control

import (
	"context"
	"encoding/json"
	"net/http"
)

// Preset is a preset, and how many namespaces have it.
type Preset struct {
	Default    bool            `json:"default"`
	Namespaces uint64          `json:"namespaces"` // that have it
	Preset     json.RawMessage `json:"preset"`     // as package alba/preset reads it
}

// Presets say how vDisks are stored.
type Presets interface {
	Presets(ctx context.Context) ([]Preset, error)
	StorageOf(ctx context.Context, namespace string) (Storage, error)
	// CreatePreset makes a preset of JSON. DeletePreset fails if the preset is not
	// there.
	CreatePreset(ctx context.Context, preset json.RawMessage, asDefault bool) error
	DeletePreset(ctx context.Context, name string) error
}

type presetRequest struct {
	Preset  json.RawMessage `json:"preset"`
	Default bool            `json:"default,omitempty"`
}

func (s *Server) presetRoutes(mux *http.ServeMux) {
	type none = struct{}
	handleALBA(s, mux, "preset/list", func(a albaServer, ctx context.Context, _ none) ([]Preset, error) { return a.Presets(ctx) })
	handleALBA(s, mux, "preset/create", func(a albaServer, ctx context.Context, r presetRequest) (done, error) {
		return done{}, a.CreatePreset(ctx, r.Preset, r.Default)
	})
	handleALBA(s, mux, "preset/delete", func(a albaServer, ctx context.Context, r nameRequest) (done, error) {
		return done{}, advise(a.DeletePreset(ctx, r.Name), "see `ovs alba preset list`")
	})
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
