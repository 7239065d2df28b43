/* The rules of kz_project: their normals and values, and whether a point meets them. */
#include "kz_project_parts.h"

void kzp_normal(const kz_projection *p, const task *t, int id, double *v) {
  int i, j;
  if (id < ROWS) {
    memcpy(v, p->unit[id], sizeof(double) * N);
  } else if (id < UPPER) {
    memcpy(v, t->cut[id - ROWS], sizeof(double) * N);
  } else {
    memset(v, 0, sizeof(double) * N);
    v[id < LOWER ? id - UPPER : id - LOWER] = id < LOWER ? 1 : -1;
  }
  if (t->h)
    for (i = 0; i < t->n; i++) {
      double s = v[i];
      for (j = 0; j < i; j++) s -= t->h[i][j] * v[j];
      v[i] = s * t->h[i][i];
    }
}

double kzp_quadratic(const kz_projection *p, const task *t, int k, const double *x, double *gradient, double *size) {
  double square = 0, line = 0;
  int i;
  for (i = 0; i < t->n; i++) {
    const double s = kzp_dot(p->q[k][i], x, t->padded);
    gradient[i] = 2 * s + p->c[k][i];
    square += x[i] * s;
    line += x[i] * p->c[k][i];
  }
  for (; i < N; i++) gradient[i] = 0;
  *size = fabs(square) + fabs(line) + fabs(t->r[k]);
  return square + line - t->r[k];
}

int kzp_meets(const kz_projection *p, const task *t, const double *x, double tolerance) {
  double gradient[N], size;
  int j;
  for (j = 0; j < p->rows; j++)
    if (t->rows >> j & 1 && !(kzp_dot(p->unit[j], x, t->padded) - t->bound[j] <= tolerance * t->scale)) return 0;
  for (j = 0; j < p->quads; j++)
    if (t->quads >> j & 1 && !(kzp_quadratic(p, t, j, x, gradient, &size) <= tolerance * size)) return 0;
  return 1;
}
