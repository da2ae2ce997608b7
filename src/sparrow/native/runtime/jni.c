/* Java's door to a model: native methods of org.sparrow.model.SparrowModel over direct buffers.
 *
 * The part of jni.h that is used is declared here: the compiler's package has no Android headers. The
 * numbers are those of the JNI function table, the same on every Java since 1.4. */
#include "../sparrow.h"

SPARROW_DECLARE(model); /* a package has a name of its own in its place */

typedef const void *const *const *java_env;
typedef void *java_object;

enum { GET_ARRAY_LENGTH = 171, GET_ELEMENT = 173, GET_ADDRESS = 230, GET_CAPACITY = 231 };
enum { MOST = 64, BAD_BUFFER = -1, ALIGNMENT = 64 };

/* A direct buffer of at least `bytes`; NULL where it is none. */
static void *buffer(java_env env, java_object object, uint64_t bytes) {
  void *(*address)(java_env, java_object);
  int64_t (*capacity)(java_env, java_object);
  address = (void *(*)(java_env, java_object))(uintptr_t)(*env)[GET_ADDRESS];
  capacity = (int64_t (*)(java_env, java_object))(uintptr_t)(*env)[GET_CAPACITY];
  if (object == NULL || capacity(env, object) < (int64_t)bytes) return NULL;
  return address(env, object);
}

/* The buffers of an array, one per tensor; 0 where one is missing or too small. */
static int buffers(java_env env, java_object array, const sparrow_tensor_info *tensors, int32_t n,
                   void **to) {
  int32_t (*length)(java_env, java_object);
  java_object (*element)(java_env, java_object, int32_t);
  length = (int32_t(*)(java_env, java_object))(uintptr_t)(*env)[GET_ARRAY_LENGTH];
  element = (java_object(*)(java_env, java_object, int32_t))(uintptr_t)(*env)[GET_ELEMENT];
  if (n > MOST || array == NULL || length(env, array) != n) return 0;
  for (int32_t i = 0; i < n; ++i) {
    to[i] = buffer(env, element(env, array, i), tensors[i].bytes);
    if (to[i] == NULL && tensors[i].bytes > 0) return 0;
  }
  return 1;
}

#define METHOD(type, name) SPARROW_API type Java_org_sparrow_model_SparrowModel_##name

METHOD(int32_t, misaligned)(java_env env, java_object class_, java_object raw);
METHOD(int64_t, weightsBytes)(java_env env, java_object class_);
METHOD(int64_t, workspaceBytes)(java_env env, java_object class_);
METHOD(int64_t, stateBytes)(java_env env, java_object class_);
METHOD(int32_t, reset)(java_env env, java_object class_, java_object state, java_object weights);
METHOD(int32_t, run)(java_env env, java_object class_, int32_t entry, java_object weights,
                     java_object workspace, java_object state, java_object inputs,
                     java_object outputs);

METHOD(int32_t, misaligned)(java_env env, java_object class_, java_object raw) {
  const uintptr_t address = (uintptr_t)buffer(env, raw, 0);
  (void)class_;
  return (int32_t)((0 - address) & (ALIGNMENT - 1));
}
METHOD(int64_t, weightsBytes)(java_env env, java_object class_) {
  (void)env, (void)class_;
  return (int64_t)model_info()->weights_bytes;
}
METHOD(int64_t, workspaceBytes)(java_env env, java_object class_) {
  (void)env, (void)class_;
  return (int64_t)model_info()->workspace_bytes;
}
METHOD(int64_t, stateBytes)(java_env env, java_object class_) {
  (void)env, (void)class_;
  return (int64_t)model_info()->state_bytes;
}
METHOD(int32_t, reset)(java_env env, java_object class_, java_object state, java_object weights) {
  const sparrow_model_info *info = model_info();
  (void)class_;
  return model_reset(buffer(env, state, info->state_bytes),
                     buffer(env, weights, info->weights_bytes));
}
METHOD(int32_t, run)(java_env env, java_object class_, int32_t entry, java_object weights,
                     java_object workspace, java_object state, java_object inputs,
                     java_object outputs) {
  const sparrow_model_info *info = model_info();
  void *in[MOST], *out[MOST];
  sparrow_call call = {0};
  (void)class_;
  if (entry < 0 || entry >= info->n_entries) return SPARROW_BAD_ENTRY;
  if (!buffers(env, inputs, info->entries[entry].inputs, info->entries[entry].n_inputs, in) ||
      !buffers(env, outputs, info->entries[entry].outputs, info->entries[entry].n_outputs, out))
    return BAD_BUFFER;
  call.entry = (uint32_t)entry;
  call.inputs = (const void *const *)in;
  call.outputs = out;
  call.weights = buffer(env, weights, info->weights_bytes);
  call.workspace = buffer(env, workspace, info->workspace_bytes);
  call.state = buffer(env, state, info->state_bytes);
  return model_run(&call);
}
