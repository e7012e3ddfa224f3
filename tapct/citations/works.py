"""The bibliography: BibTeX of the works that results rest on, by key.

From the papers' own pages and repositories and the list of references of the TAP-CT paper (arXiv:2512.00872). Of long
lists of authors the first three are named. What could not be established is not in an entry.
"""

import functools
import re

_BENCHMARK = r"""
@software{tapctbench,
  title = {{TAP-CT Bench}: how good is this {CT} foundation model?},
  author = {{The TAP-CT Bench maintainers}},
  year = {2026},
  version = {0.1.0},
  license = {Apache-2.0}
}

@inproceedings{kaiko.ai2024eva,
  title = {eva: Evaluation framework for pathology foundation models},
  author = {{kaiko.ai} and Gatopoulos, Ioannis and K{\"a}nzig, Nicolas and Moser, Roman and Ot{\'a}lora, Sebastian},
  booktitle = {Medical Imaging with Deep Learning},
  year = {2024},
  url = {https://openreview.net/forum?id=FNBQOPj18N}
}
"""

_ENCODERS = r"""
@misc{veenboer2025tapct,
  title = {{TAP-CT}: {3D} Task-Agnostic Pretraining of Computed Tomography Foundation Models},
  author = {Veenboer, Tim and Yiasemis, George and Marcus, Eric and Van Veldhuizen, Vivien and Snoek, Cees G. M. and
    Teuwen, Jonas and Groot Lipman, Kevin B. W.},
  year = {2025},
  eprint = {2512.00872},
  archivePrefix = {arXiv}
}

@misc{dancette2025curia,
  title = {Curia: A Multi-Modal Foundation Model for Radiology},
  author = {Dancette, Corentin and Khlaut, Julien and Saporta, Antoine and others},
  year = {2025},
  eprint = {2509.06830},
  archivePrefix = {arXiv}
}

@misc{saporta2026curia2,
  title = {Curia-2: Scaling Self-Supervised Learning for Radiology Foundation Models},
  author = {Saporta, Antoine and Callard, Baptiste and Dancette, Corentin and Khlaut, Julien and Corbi{\`e}re,
    Charles and
    Butsanets, Leo and Prat, Amaury and Manceron, Pierre},
  year = {2026},
  eprint = {2604.01987},
  archivePrefix = {arXiv}
}

@misc{gatopoulos2026coralbay,
  title = {{CoralBay}: A Self-Supervised {CT} Foundation Model},
  author = {Gatopoulos, Ioannis and K{\"a}nzig, Nicolas and Ot{\'a}lora, Sebastian and Tang, Fei},
  year = {2026},
  eprint = {2606.03888},
  archivePrefix = {arXiv}
}

@inproceedings{li2024suprem,
  title = {How Well Do Supervised {3D} Models Transfer to Medical Imaging Tasks?},
  author = {Li, Wenxuan and Yuille, Alan and Zhou, Zongwei},
  booktitle = {The Twelfth International Conference on Learning Representations},
  year = {2024}
}

@misc{pai2025ctfm,
  title = {Vision Foundation Models for Computed Tomography},
  author = {Pai, Suraj and Hadzic, Ibrahim and Bontempi, Dennis and Bressem, Keno and Kann, Benjamin H. and
    Fedorov, Andriy and Mak, Raymond H. and Aerts, Hugo J. W. L.},
  year = {2025},
  eprint = {2501.09001},
  archivePrefix = {arXiv},
  doi = {10.48550/arXiv.2501.09001}
}

@inproceedings{he2025vista3d,
  title = {{VISTA3D}: A Unified Segmentation Foundation Model For {3D} Medical Imaging},
  author = {He, Yufan and Guo, Pengfei and Tang, Yucheng and others},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {20863--20873},
  year = {2025},
  doi = {10.1109/CVPR52734.2025.01943}
}

@inproceedings{wu2024voco,
  title = {{VoCo}: A Simple-yet-Effective Volume Contrastive Learning Framework for {3D} Medical Image Analysis},
  author = {Wu, Linshan and Zhuang, Jiaxin and Chen, Hao},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {22873--22882},
  year = {2024}
}

@article{wu2026voco,
  title = {Large-Scale {3D} Medical Image Pre-training with Geometric Context Priors},
  author = {Wu, Linshan and Zhuang, Jiaxin and Chen, Hao},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year = {2026},
  doi = {10.1109/TPAMI.2025.3639593},
  note = {arXiv:2410.09890}
}

@article{pai2024fmcib,
  title = {Foundation model for cancer imaging biomarkers},
  author = {Pai, Suraj and Bontempi, Dennis and Hadzic, Ibrahim and others},
  journal = {Nature Machine Intelligence},
  volume = {6},
  number = {3},
  pages = {354--367},
  year = {2024},
  doi = {10.1038/s42256-024-00807-9}
}

@misc{morenoaguado2026voxelfm,
  title = {Learning Robust Visual Features in Computed Tomography Enables Efficient Transfer Learning for Clinical
    Tasks},
  author = {Moreno-Aguado, R. and others},
  year = {2026},
  eprint = {2604.04133},
  archivePrefix = {arXiv}
}

@article{blankemeier_kumar2026merlin,
  title = {Merlin: a computed tomography vision-language foundation model and dataset},
  author = {Blankemeier, Louis and Kumar, Ashwin and others},
  journal = {Nature},
  year = {2026},
  doi = {10.1038/s41586-026-10181-8}
}

@misc{wang2026astra,
  title = {Astra: a generalizable report generation foundation model for {3D} computed tomography},
  author = {Wang, Zhuhao and Chen, Fang and Yu, Chaohui and others},
  year = {2026},
  eprint = {2605.31437},
  archivePrefix = {arXiv}
}

@misc{li2026universal,
  title = {Universal {CT} Representations from Anatomy to Disease Phenotype through Agglomerative Pretraining},
  author = {Li, Yuheng and Gao, Yuan and Dong, Haoyu and Lai, Yuxiang and Wang, Shansong and Safari, Mojtaba and
    Baciak, James E. and Yang, Xiaofeng},
  year = {2026},
  eprint = {2605.21906},
  archivePrefix = {arXiv}
}

@misc{claessens2025spectre,
  title = {Scaling Self-Supervised and Cross-Modal Pretraining for Volumetric {CT} Transformers},
  author = {Claessens, Cris and Viviers, Christiaan and D'Amicantonio, Giacomo and Bondarev, Egor and
    van der Sommen, Fons},
  year = {2025},
  eprint = {2511.17209},
  archivePrefix = {arXiv},
  doi = {10.48550/arXiv.2511.17209},
  note = {CVPR 2026}
}

@misc{wald2025colipri,
  title = {Comprehensive language-image pre-training for {3D} medical image understanding},
  author = {Wald, Tassilo and Hamamci, Ibrahim Ethem and Gao, Yuan and others},
  year = {2025},
  eprint = {2510.15042},
  archivePrefix = {arXiv}
}

@misc{harsy2026nnfoundation,
  title = {{nnFoundation}: {3D} Foundation Models for Radiology},
  author = {Harsy, Constantin Ulrich and Wald, Tassilo and Gotkowski, Karol and others},
  year = {2026},
  eprint = {2609.26924},
  archivePrefix = {arXiv}
}

@article{hamamci2026ctrate,
  title = {Generalist foundation models from a multimodal dataset for {3D} computed tomography},
  author = {Hamamci, Ibrahim Ethem and Er, Sezgin and Wang, Chenyu and others},
  journal = {Nature Biomedical Engineering},
  year = {2026},
  doi = {10.1038/s41551-025-01599-y},
  note = {arXiv:2403.17834}
}

@misc{zwanenburg2016ibsi,
  title = {Image biomarker standardisation initiative},
  author = {Zwanenburg, Alex and Leger, Stefan and Valli{\`e}res, Martin and L{\"o}ck, Steffen},
  year = {2016},
  eprint = {1612.07003},
  archivePrefix = {arXiv}
}

@inproceedings{liu2023universal,
  title = {{CLIP}-Driven Universal Model for Organ Segmentation and Tumor Detection},
  author = {Liu, Jie and Zhang, Yixiao and Chen, Jie-Neng and others},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2023},
  note = {arXiv:2301.00785}
}

@inproceedings{hatamizadeh2022swinunetr,
  title = {Swin {UNETR}: Swin Transformers for Semantic Segmentation of Brain Tumors in {MRI} Images},
  author = {Hatamizadeh, Ali and Nath, Vishwesh and Tang, Yucheng and Yang, Dong and Roth, Holger R. and Xu, Daguang},
  booktitle = {Brainlesion: Glioma, Multiple Sclerosis, Stroke and Traumatic Brain Injuries},
  pages = {272--284},
  year = {2022}
}

@inproceedings{myronenko2019segresnet,
  title = {{3D} {MRI} brain tumor segmentation using autoencoder regularization},
  author = {Myronenko, Andriy},
  booktitle = {Brainlesion: Glioma, Multiple Sclerosis, Stroke and Traumatic Brain Injuries},
  pages = {311--320},
  year = {2019},
  note = {arXiv:1810.11654}
}
"""

_DATA = r"""
@misc{ji2022amos,
  title = {{AMOS}: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image Segmentation},
  author = {Ji, Yuanfeng and Bai, Haotian and Yang, Jie and others},
  year = {2022},
  eprint = {2206.08023},
  archivePrefix = {arXiv}
}

@article{bilic2022lits,
  title = {The Liver Tumor Segmentation Benchmark ({LiTS})},
  author = {Bilic, Patrick and others},
  journal = {Medical Image Analysis},
  volume = {84},
  pages = {102680},
  year = {2022}
}

@misc{heller2023kits21,
  title = {The {KiTS21} Challenge: Automatic segmentation of kidneys, renal tumors, and renal cysts in
    corticomedullary-phase
    {CT}},
  author = {Heller, Nicholas and Isensee, Fabian and Trofimova, Dasha and others},
  year = {2023},
  eprint = {2307.01984},
  archivePrefix = {arXiv}
}

@article{wasserthal2023totalsegmentator,
  title = {{TotalSegmentator}: Robust Segmentation of 104 Anatomic Structures in {CT} Images},
  author = {Wasserthal, Jakob and Breit, Hanns-Christian and Meyer, Manfred T. and others},
  journal = {Radiology: Artificial Intelligence},
  volume = {5},
  number = {5},
  year = {2023},
  doi = {10.1148/ryai.230024}
}

@misc{simpson2019msd,
  title = {A large annotated medical image dataset for the development and evaluation of segmentation algorithms},
  author = {Simpson, Amber L. and Antonelli, Michela and Bakas, Spyridon and others},
  year = {2019},
  eprint = {1902.09063},
  archivePrefix = {arXiv}
}

@article{setio2017luna16,
  title = {Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules in
    computed
    tomography images: the {LUNA16} challenge},
  author = {Setio, Arnaud Arindra Adiyoso and Traverso, Alberto and de Bel, Thomas and others},
  journal = {Medical Image Analysis},
  volume = {42},
  pages = {1--13},
  year = {2017},
  doi = {10.1016/j.media.2017.06.015}
}

@article{armato2011lidc,
  title = {The Lung Image Database Consortium ({LIDC}) and Image Database Resource Initiative ({IDRI}): A completed
    reference database of lung nodules on {CT} scans},
  author = {Armato III, Samuel G. and McLennan, Geoffrey and Bidaut, Luc and others},
  journal = {Medical Physics},
  volume = {38},
  number = {2},
  pages = {915--931},
  year = {2011},
  doi = {10.1118/1.3528204}
}

@misc{armato2015lidcidri,
  title = {Data From {LIDC-IDRI}},
  author = {Armato III, Samuel G. and McLennan, Geoffrey and Bidaut, Luc and others},
  year = {2015},
  publisher = {The Cancer Imaging Archive},
  doi = {10.7937/K9/TCIA.2015.LO9QL9SX}
}

@misc{peeters2025luna25annotations,
  title = {The {LUNA25} Challenge: Public Training and Development set -- Annotation Data},
  author = {Peeters, D. and Obreja, B. and Antonissen, N. and Jacobs, C.},
  year = {2025},
  publisher = {Zenodo},
  version = {1.0.0},
  doi = {10.5281/zenodo.14673658}
}

@misc{peeters2025luna25images,
  title = {The {LUNA25} Challenge: Public Training and Development set -- Imaging Data},
  author = {Peeters, D. and Obreja, B. and Antonissen, N. and Jacobs, C.},
  year = {2025},
  publisher = {Zenodo},
  version = {1.0.0},
  doi = {10.5281/zenodo.14223624}
}

@article{lin2023rsnacspine,
  title = {The {RSNA} Cervical Spine Fracture {CT} Dataset},
  author = {Lin, H. M. and Colak, E. and Richards, T. and others},
  journal = {Radiology: Artificial Intelligence},
  volume = {5},
  number = {5},
  pages = {e230034},
  year = {2023},
  doi = {10.1148/ryai.230034}
}

@misc{rudie2024ratic,
  title = {The {RSNA} Abdominal Traumatic Injury {CT} ({RATIC}) Dataset},
  author = {Rudie, Jeffrey D. and others},
  year = {2024},
  eprint = {2405.19595},
  archivePrefix = {arXiv}
}

@article{hermans2025rsnaabdominal,
  title = {{RSNA} 2023 Abdominal Trauma {AI} Challenge: Review and Outcomes},
  author = {Hermans, Sebastiaan and Hu, Zixuan and Ball, Robyn L. and others},
  journal = {Radiology: Artificial Intelligence},
  volume = {7},
  number = {1},
  pages = {e240334},
  year = {2025}
}

@misc{gatidis2022fdgpetct,
  title = {A whole-body {FDG-PET/CT} dataset with manually annotated tumor lesions ({FDG-PET-CT-Lesions})},
  author = {Gatidis, S. and Kuestner, T.},
  year = {2022},
  publisher = {The Cancer Imaging Archive},
  version = {1},
  doi = {10.7937/gkr0-xv29}
}

@inproceedings{landman2015btcv,
  title = {{MICCAI} Multi-Atlas Labeling Beyond the Cranial Vault -- Workshop and Challenge},
  author = {Landman, Bennett and Xu, Zhoubing and others},
  booktitle = {Proc. MICCAI Multi-Atlas Labeling Beyond Cranial Vault -- Workshop Challenge},
  year = {2015}
}

@misc{ma2023flare22,
  title = {Unleashing the Strengths of Unlabeled Data in Pan-cancer Abdominal Organ Quantification: the {FLARE22}
    Challenge},
  author = {Ma, Jun and Zhang, Yao and Gu, Song and others},
  year = {2023},
  eprint = {2308.05862},
  archivePrefix = {arXiv}
}

@article{luo2022word,
  title = {{WORD}: A large scale dataset, benchmark and clinical applicable study for abdominal organ segmentation
    from {CT}
    image},
  author = {Luo, Xiangde and Liao, Wenjun and Xiao, Jianghong and others},
  journal = {Medical Image Analysis},
  volume = {82},
  pages = {102642},
  year = {2022},
  doi = {10.1016/j.media.2022.102642}
}

@article{zhang2020ccccii,
  title = {Clinically Applicable {AI} System for Accurate Diagnosis, Quantitative Measurements, and Prognosis of
    {COVID-19}
    Pneumonia Using Computed Tomography},
  author = {Zhang, Kang and Liu, Xiaohong and Shen, Jun and others},
  journal = {Cell},
  volume = {181},
  number = {6},
  pages = {1423--1433.e11},
  year = {2020},
  doi = {10.1016/j.cell.2020.04.045}
}

@article{ning2020ictcf,
  title = {Open resource of clinical data from patients with pneumonia for the prediction of {COVID-19} outcomes via
    deep
    learning},
  author = {Ning, W. S. and Lei, S. J. and Yang, J. J. and others},
  journal = {Nature Biomedical Engineering},
  volume = {4},
  pages = {1197--1207},
  year = {2020},
  doi = {10.1038/s41551-020-00633-5}
}
"""


@functools.cache
def works() -> dict[str, str]:
    """Returns the entries by key."""
    return entries_of("\n".join((_BENCHMARK, _ENCODERS, _DATA)))


def entries_of(text: str) -> dict[str, str]:
    """Returns the entries of a BibTeX text by key.

    Braces decide where an entry ends, as BibTeX has it, so that an entry may be laid out in any way.

    Raises:
        ValueError: If an entry has no key, or does not end.
    """
    found: dict[str, str] = {}
    start = text.find("@")
    while start >= 0:
        end = _end_of(text, start)
        entry = text[start:end]
        key = re.match(r"@\w+\s*\{\s*([^,\s}]+)\s*,", entry)
        if key is None:
            raise ValueError(f"an entry of BibTeX without a key: {entry[:60]!r}")
        found[key[1]] = entry
        start = text.find("@", end)
    return found


def _end_of(text: str, start: int) -> int:
    """Returns the place behind the brace that closes the entry which starts there."""
    depth = 0
    for place in range(text.find("{", start), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    raise ValueError(f"an entry of BibTeX does not end: {text[start : start + 60]!r}")
