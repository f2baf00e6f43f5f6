package control

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Object is an object.
type Object struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Size    uint64    `json:"size"`
	Stored  uint64    `json:"stored"`
	Version uint64    `json:"version"`
	Put     time.Time `json:"put"`
	Policy  string    `json:"policy"` // "inline" for one in its manifest
	Width   int       `json:"width"`  // fragments of its weakest chunk
	Full    bool      `json:"full_width"`
	// State counts the fragments on disks that can be read now.
	State  string  `json:"state"`
	Chunks []Chunk `json:"chunks,omitempty"`
}

// Chunk is a chunk of an object.
type Chunk struct {
	Plain     uint32     `json:"plain"`
	Stored    uint32     `json:"stored"`
	Fragments []Fragment `json:"fragments"`
}

// Fragment is a fragment and how it is.
type Fragment struct {
	OSD    uint64 `json:"osd"`
	Key    string `json:"key"`
	Length uint32 `json:"length"`
	State  string `json:"state"` // ok, or why it cannot be read
}

// ObjectPage is a part of a list of objects.
type ObjectPage struct {
	Objects []Object `json:"objects"`
	// More says that there are more objects behind the last.
	More bool `json:"more"`
}

// Objects are the objects in namespaces.
type Objects interface {
	Objects(ctx context.Context, namespace, prefix, after string, fn func(Object) bool) error
	Object(ctx context.Context, namespace, name string) (Object, error)
	Manifest(ctx context.Context, namespace, name string) ([]byte, error)
}

// objectsMax bounds the objects of one answer.
const objectsMax = 1000

type objectRequest struct {
	Namespace string `json:"namespace"` // or a vDisk's name
	Name      string `json:"name,omitempty"`
	Prefix    string `json:"prefix,omitempty"`
	After     string `json:"after,omitempty"`
	Limit     int    `json:"limit,omitempty"`
}

func (s *Server) objectRoutes(mux *http.ServeMux) {
	handleALBA(s, mux, "object/list", albaServer.objectList)
	handleALBA(s, mux, "object/show", albaServer.object)
	handleALBA(s, mux, "object/manifest", albaServer.manifest)
}

func (a albaServer) objectList(ctx context.Context, r objectRequest) (ObjectPage, error) {
	namespace, _, err := a.namespace(ctx, r.Namespace)
	if err != nil {
		return ObjectPage{}, err
	}
	limit := objectsMax
	if r.Limit > 0 {
		limit = min(r.Limit, limit)
	}
	page := ObjectPage{Objects: []Object{}}
	err = a.Objects(ctx, namespace, r.Prefix, r.After, func(o Object) bool {
		if len(page.Objects) == limit {
			page.More = true
			return false
		}
		page.Objects = append(page.Objects, o)
		return true
	})
	return page, advise(err, "see `ovs alba namespace list`")
}

func (a albaServer) object(ctx context.Context, r objectRequest) (Object, error) {
	namespace, _, err := a.namespace(ctx, r.Namespace)
	if err != nil {
		return Object{}, err
	}
	o, err := a.Object(ctx, namespace, r.Name)
	return o, advise(err, seeObjects(err, r.Namespace))
}

func (a albaServer) manifest(ctx context.Context, r objectRequest) ([]byte, error) {
	namespace, _, err := a.namespace(ctx, r.Namespace)
	if err != nil {
		return nil, err
	}
	b, err := a.Manifest(ctx, namespace, r.Name)
	return b, advise(err, seeObjects(err, r.Namespace))
}

// seeObjects adds advice to the error of an object that is not there.
func seeObjects(err error, namespace string) string {
	if errors.Is(err, ErrNoNamespace) {
		return "see `ovs alba namespace list`"
	}
	return "see `ovs alba object list " + namespace + "`"
}

// Objects returns the first limit objects of a namespace, 1000 at most, whose names
// begin with prefix and come behind after.
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
