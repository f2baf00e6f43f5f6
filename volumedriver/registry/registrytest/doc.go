// Package registrytest holds the conformance suite of a registry over a store
// of keys, and Files, the simplest such store, for tests of what stands on a
// registry.
package registrytest
