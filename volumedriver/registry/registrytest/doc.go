// Package registrytest holds the conformance suite of a registry over a store of keys.
// It also has Files, the simplest such store, for tests of packages that need a registry.
package registrytest
