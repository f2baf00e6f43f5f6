package control

import (
	"context"
	"net/http"
	"time"
)

// Namespace is a namespace and the vDisk that lives in it, "" for none.
type Namespace struct {
	VDisk string `json:"vdisk"`
	NamespaceInfo
}

// NamespaceInfo is a namespace.
type NamespaceInfo struct {
	Name    string        `json:"name"`
	Number  uint64        `json:"number"`
	Preset  string        `json:"preset"`
	Host    uint64        `json:"nsm_host"`
	State   string        `json:"state"`
	Reason  string        `json:"reason,omitempty"`
	Created time.Time     `json:"created"`
	Objects uint64        `json:"objects"`
	Size    uint64        `json:"size"`
	Stored  uint64        `json:"stored"`
	Buckets []BucketCount `json:"buckets,omitempty"`
	OSDs    []OSDUsage    `json:"osds,omitempty"`
	Epochs  *Epochs       `json:"epochs,omitempty"`
}

// BucketCount counts objects of K data and M parity fragments, of which Present are
// there.
type BucketCount struct {
	K, M, Present uint8
	Objects       uint64
}

// Full reports whether no fragment is missing.
func (b BucketCount) Full() bool { return int(b.Present) >= int(b.K)+int(b.M) }

// OSDUsage is what a namespace has on a disk.
type OSDUsage struct{ OSD, Fragments, Bytes uint64 }

// Epochs are the gc epochs that are open: from Minimum up to Next, without Next.
type Epochs struct{ Minimum, Next uint64 }

// Namespaces are the namespaces of the backend: those of vDisks, and others.
type Namespaces interface {
	Namespaces(ctx context.Context) ([]NamespaceInfo, error)
	NamespaceInfo(ctx context.Context, name string) (NamespaceInfo, error)
}

func (s *Server) namespaceRoutes(mux *http.ServeMux) {
	type none = struct{}
	handleALBA(s, mux, "namespace/list", func(a albaServer, ctx context.Context, _ none) ([]Namespace, error) { return a.namespaceList(ctx) })
	handleALBA(s, mux, "namespace/show", func(a albaServer, ctx context.Context, r nameRequest) (Namespace, error) {
		return a.namespaceShow(ctx, r.Name)
	})
}

func (a albaServer) namespaceList(ctx context.Context) ([]Namespace, error) {
	names, err := a.vdisks(ctx)
	if err != nil {
		return nil, err
	}
	all, err := a.Namespaces(ctx)
	list := make([]Namespace, len(all))
	for i, n := range all {
		n.Buckets, n.OSDs, n.Epochs = nil, nil, nil // for those who ask for one
		list[i] = Namespace{VDisk: names[n.Name], NamespaceInfo: n}
	}
	return list, err
}

func (a albaServer) namespaceShow(ctx context.Context, name string) (Namespace, error) {
	namespace, vdisk, err := a.namespace(ctx, name)
	if err != nil {
		return Namespace{}, err
	}
	n, err := a.NamespaceInfo(ctx, namespace)
	return Namespace{VDisk: vdisk, NamespaceInfo: n}, advise(err, "see `ovs alba namespace list`")
}

// Namespaces returns all namespaces, in order of name. They lack what only Namespace
// tells.
func (c *Client) Namespaces(ctx context.Context) ([]Namespace, error) {
	return call[[]Namespace](ctx, c, "alba/namespace/list", struct{}{}, nil)
}

// Namespace returns one namespace.
func (c *Client) Namespace(ctx context.Context, name string) (Namespace, error) {
	return call[Namespace](ctx, c, "alba/namespace/show", nameRequest{Name: name}, nil)
}
