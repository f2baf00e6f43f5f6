// Package registrykeys keeps the registry of vDisks on an Arakoon group: Keys
// is the few methods that package volumedriver/registry asks of a replicated
// store, over a node. It is where the two meet; neither knows the other.
package registrykeys
